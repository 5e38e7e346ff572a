"""Everything that can be known to be wrong before training starts, found in one go."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import assert_never

import torch

from src import distributed
from src.agreement import problems_of_all, require_same_command
from src.batch import Source
from src.build_model import build_live_model
from src.config import Config, ConfigError, Problem
from src.config.identity import run_name
from src.config.optim import Adam, AdamW, Lamb, Lars, OptimConfig, RmsProp, ScheduleFreeAdamW, ScheduleFreeSgd, Sgd, SgdW
from src.data.build_engine import engine_problems
from src.session import Place
from src.tracking.build import tracker_problems
from src.training.arithmetic import plan_arithmetic, split_batch
from src.training.precision import choose_precision

# An average's own tensors, and the weights and statistics that were evaluated.
_AVERAGE_COPIES = {"none": 0, "schedule_free": 1, "ema": 2, "swa": 2, "ema_swa": 3}


def preflight(
    config: Config, place: Place, open_sources: Callable[[Config, Place], tuple[Source, Source]]
) -> tuple[Source, Source]:
    """Check ranks, devices, folder, space and data, and return the opened sources.

    Raises:
        ConfigError: with all problems, the same on every rank.
    """
    require_same_command(config)
    problems: list[Problem] = []
    sources: tuple[Source, Source] | None = None
    try:
        split_batch(config, place.world.size)
    except ConfigError as error:
        problems += error.problems
    problems += device_problems(config, place)
    problems += engine_problems(config.data, place.device)
    problems += tracker_problems(config.track)
    problems = problems_of_all(problems)  # a rank that raised alone would be waited for
    try:
        sources = open_sources(config, place)
    except ConfigError as error:
        problems += error.problems
    problems += distributed.from_rank_0(lambda: folder_problems(config, sources))
    if sources is not None and not problems:
        try:
            plan_arithmetic(config, num_train=len(sources[0]), world_size=place.world.size)
        except ConfigError as error:
            problems += error.problems
    if problems or sources is None:
        raise ConfigError("the preflight", problems)
    return sources


def device_problems(config: Config, place: Place) -> list[Problem]:
    """Look for a type that the device cannot compute, and for more ranks than GPUs."""
    problems = []
    if place.device.type == "cuda":
        if config.precision == "bf16" and not torch.cuda.is_bf16_supported():
            problems.append(
                Problem("precision", "bf16", f"{torch.cuda.get_device_name()} has no bf16. Set precision=fp16 or auto.")
            )
        gpus = torch.cuda.device_count()
        if place.world.local_size > gpus:
            fix = f"more ranks than the {gpus} GPUs of this node. Set --nproc_per_node={gpus}."
            problems.append(Problem("--nproc_per_node", place.world.local_size, fix))
    return problems


def folder_problems(config: Config, sources: tuple[Source, Source] | None) -> list[Problem]:
    """Look at the run's folder without making it: may it be written, and is there room for its checkpoints?"""
    path = Path(config.runs_dir).expanduser() / run_name(config)
    parent = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        return [Problem("runs_dir", config.runs_dir, f"{parent} cannot be written. Set runs_dir to a folder that can.")]
    if sources is None:
        return []
    needed, free = checkpoint_bytes(config, len(sources[0].classes)) * (config.keep_top_k + 3), shutil.disk_usage(parent).free
    if needed > free:
        fix = (
            f"{free / 2**30:.1f} GiB are free in {parent}, but {config.keep_top_k + 3} checkpoints need {needed / 2**30:.1f} GiB. "
            "Free some space, lower keep_top_k, or set runs_dir to another disk."
        )
        return [Problem("runs_dir", config.runs_dir, fix)]
    return []


def checkpoint_bytes(config: Config, num_classes: int) -> int:
    """Return the size of one checkpoint: weights, buffers, and the optimizer's state."""
    with torch.device("meta"):
        precision = choose_precision(config.precision, torch.device("cpu"))
        model = build_live_model(config, precision, torch.device("meta"), num_classes=num_classes)
    weights: int = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    copies = 1 + optimizer_tensors(config.optim) + _AVERAGE_COPIES[config.average.name]
    return weights * copies


def optimizer_tensors(optim: OptimConfig) -> int:
    """Return how many tensors of a weight's size the optimizer holds for each weight, at most."""
    match optim:
        case RmsProp():
            return 1 + (optim.momentum > 0) + optim.centered
        case Sgd() | SgdW() | Lars() | ScheduleFreeSgd():
            return 1
        case Adam() | AdamW() | Lamb() | ScheduleFreeAdamW():
            return 2
        case _:
            assert_never(optim)
