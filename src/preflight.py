"""Everything that can be known to be wrong before training starts, found in one go."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import permutations
from pathlib import Path

import torch

from src import distributed
from src.agreement import problems_of_all, require_same_command
from src.batch import DataError, Source
from src.build import Engines, build_engines
from src.config import Config, ConfigError, Problem
from src.config.identity import run_dir
from src.data.build_engine import engine_problems
from src.first_batch import FirstBatch, Ready, draw_first
from src.memory import checkpoint_bytes, gpu_problems
from src.session import Place
from src.tracking.build import tracker_problems
from src.training.arithmetic import Arithmetic, plan_arithmetic, split_batch

# NCCL passes data between two GPUs that cannot reach each other's memory through files of this size in /dev/shm, two from each rank
# to the next (seen with 4 GPUs in containers of 64 MB, where it fails: https://github.com/NVIDIA/nccl/issues/342, and 1518).
_NCCL_SEGMENT, _NCCL_SEGMENTS_A_RANK = 9_637_888, 2
_SHARED_MEMORY = Path("/dev/shm")


@contextmanager
def preflight(config: Config, place: Place, open_sources: Callable[[Config, Place], tuple[Source, Source]]) -> Iterator[Ready]:
    """Check ranks, devices, folder, space, data and memory, draw a first batch, and hand out what was opened, until the end.

    Raises:
        ConfigError: with all problems, the same on every rank.
    """
    require_same_command(config)
    problems: list[Problem] = []
    try:
        split_batch(config, place.world.size)
    except ConfigError as error:
        problems += error.problems
    problems += device_problems(config, place)
    problems += engine_problems(config.data, place.device)
    problems += tracker_problems(config.track)
    problems = problems_of_all(problems)  # a rank that raised alone would be waited for
    ready_to_draw, sources = not problems, None
    try:
        sources = open_sources(config, place)
    except ConfigError as error:
        problems += error.problems
    problems += distributed.from_rank_0(lambda: folder_problems(config, sources))
    if sources is None or not ready_to_draw:
        raise ConfigError("the preflight", problems)
    train, val = sources
    try:
        arithmetic = plan_arithmetic(config, num_train=len(train), world_size=place.world.size)
    except ConfigError as error:
        raise ConfigError("the preflight", [*problems, *error.problems]) from error
    with ExitStack() as at_end:
        engines, first = try_out(config, place, arithmetic, train, val, problems, at_end)
        yield Ready(train, val, engines, first)


def try_out(
    config: Config, place: Place, arithmetic: Arithmetic, train: Source, val: Source, problems: list[Problem], at_end: ExitStack
) -> tuple[Engines, FirstBatch]:
    """Build the engines, draw a first batch, and look whether the GPU has room.

    Raises:
        ConfigError: with the problems that are known already and the new ones, of all ranks, on every rank.
    """
    new: list[Problem] = []
    made: tuple[Engines, FirstBatch] | None = None
    cause: DataError | None = None
    try:
        engines = build_engines(config, place.world, place.device, train, val)
        at_end.callback(engines.close)
        first, new, cause = draw_first(config, place, arithmetic, train, val, engines)
        made = engines, first
    except ConfigError as error:
        new = list(error.problems)
    except DataError as error:
        new, cause = [Problem("data", config.data.name, str(error))], error
    new += gpu_problems(config, place, num_classes=len(train.classes))
    problems = [*problems, *problems_of_all(new)]
    if problems or made is None:
        raise ConfigError("the preflight", problems) from cause
    return made


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
        problems += shared_memory_problems(
            place.world.local_size, reach_each_other=_gpus_reach_each_other(), folder=_SHARED_MEMORY, environment=os.environ
        )
    return problems


def shared_memory_problems(ranks: int, *, reach_each_other: bool, folder: Path, environment: Mapping[str, str]) -> list[Problem]:
    """Look whether NCCL can use /dev/shm, where it has to.

    Args:
        ranks: on this node, each with a GPU.
        reach_each_other: whether every GPU can use every other's memory.
        folder: where shared memory lies.
        environment: of this process: NCCL's own switches.
    """
    direct = reach_each_other and environment.get("NCCL_P2P_DISABLE", "0") == "0"
    if ranks < 2 or direct or environment.get("NCCL_SHM_DISABLE", "0") != "0":
        return []
    way_out = "Or set NCCL_SHM_DISABLE=1 in the environment: slower, over sockets."
    if not os.access(folder, os.W_OK | os.X_OK):
        return [Problem(str(folder), None, f"cannot be written, and NCCL passes data between {ranks} ranks in it. {way_out}")]
    needed, free = ranks * _NCCL_SEGMENTS_A_RANK * _NCCL_SEGMENT, shutil.disk_usage(folder).free
    if needed <= free:
        return []
    fix = (
        f"has {free / 2**20:.0f} MiB free, and NCCL needs {needed / 2**20:.0f} MiB in it between {ranks} ranks. In a container: "
        f"docker run --shm-size=1g (or --ipc=host). {way_out}"
    )
    return [Problem(str(folder), None, fix)]


def _gpus_reach_each_other() -> bool:
    return all(torch.cuda.can_device_access_peer(one, other) for one, other in permutations(range(torch.cuda.device_count()), 2))


def folder_problems(config: Config, sources: tuple[Source, Source] | None) -> list[Problem]:
    """Look at the run's folder without making it: may it be written, and is there room for its checkpoints?"""
    path = run_dir(config)
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
