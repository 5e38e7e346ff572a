"""Training after pruning: an ordinary run, in runs/<run>-<kind>-<share>, from the pruned weights, which it keeps pruned."""

from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load

from src.config import Config, ConfigError, Problem
from src.config.average import EvaluateScheduleFree
from src.config.compose import compose_tree
from src.config.identity import run_dir
from src.config.problems import problems_of
from src.files import write_atomically
from src.first_batch import Ready
from src.session import Place
from src.train_run import train
from src.training.evaluation import EvalResult
from src.training.stopping import Preempted, StopRequests

STAGE = "the pruning"
WEIGHTS = "pruned.safetensors"  # in the run's folder
_SHARE_OF_PEAK = 10


def finetune_config(config: Config, *, name: str, epochs: int, lr: float | None) -> Config:
    """Return the run's own configuration, for a short training from the pruned weights at a low rate.

    The data, augmentation, loss, optimizer and batch stay. The rate falls along a cosine from its peak without warm-up
    (schedule-free optimizers keep theirs constant), nothing is averaged, and images have their last size from the first epoch on.

    Args:
        config: of the run that was pruned.
        name: of the new run.
        epochs: at least 1.
        lr: the peak rate; None: a tenth of the run's own peak.

    Raises:
        ConfigError: if the two together make no sense.
    """
    tree: dict[str, Any] = config.model_dump(mode="json")
    usual = compose_tree(["schedule=cosine", "average=none", "resume=auto", "track=default"])
    peak = config.optim.lr_for(config.batch_size) / _SHARE_OF_PEAK if lr is None else lr
    tree |= {"epochs": epochs, "run_name": name, "track": usual["track"]}
    tree |= {key: usual[key] for key in ("resume", "dry_run", "profile_steps", "target_hours", "eval_every_epochs")}
    tree["optim"] |= {"peak_lr": peak, "lr_scaling": "none"}
    tree["data"]["ramp_from_size"] = None
    tree["model"]["weights"] = str(Path(config.runs_dir).expanduser() / name / WEIGHTS)
    if not isinstance(config.average, EvaluateScheduleFree):
        tree["schedule"] = {**usual["schedule"], "warmup_epochs": 0}
        tree["average"] = usual["average"]
    else:
        tree["schedule"]["warmup_epochs"] = 0
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(STAGE, problems_of(error)) from error


def put_weights(config: Config, data: bytes) -> Path:
    """Write what the run begins from into its folder. The same pruning of the same weights finds it there, and goes on.

    Raises:
        ConfigError: if the folder holds other weights, or cannot be written.
    """
    path = run_dir(config) / WEIGHTS
    try:
        if path.exists():
            if _same(path.read_bytes(), data):
                return path
            fix = f"{path} holds weights of another pruning. Delete {path.parent}, or move it away."
            raise ConfigError(STAGE, [Problem("prune", None, fix)])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        fix = f"{path} cannot be written ({error.strerror}). Set runs_dir to a folder that can."
        raise ConfigError(STAGE, [Problem("runs_dir", config.runs_dir, fix)]) from error
    return path


def _same(one: bytes, other: bytes) -> bool:
    """Compare two files' tensors: safetensors writes its metadata in any order."""
    try:
        first, second = load(one), load(other)
    except SafetensorError:
        return False
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def finetune(config: Config, place: Place, ready: Ready) -> EvalResult:
    """Train the pruned weights, or go on where an earlier process was stopped. A finished run is not trained again.

    Raises:
        KeyboardInterrupt: after Ctrl-C; the state is saved, and the same command goes on.
        Preempted: asked to stop in another way; the same.
        ConfigError: if the run's folder is of another configuration.
    """
    outcome = train(config, place, ready, StopRequests(run_dir(config) / "STOP"))
    if outcome.status != "finished":
        raise KeyboardInterrupt if outcome.interrupted else Preempted
    assert outcome.result is not None
    return outcome.result
