"""Going on from a checkpoint: which one, whether it fits, and what of the written records stays."""

import hashlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from loguru import logger

from src import distributed
from src.agreement import first_to_say, first_unlike_rank_0
from src.config import Config, ConfigError, Problem
from src.config.identity import CUT_OTHERWISE, differences, model_name
from src.files import TEMPORARY_PREFIX
from src.tracking.run_folder import STAGE
from src.training.checkpoint import Checkpoints
from src.training.checkpoint_file import CheckpointError, load_file
from src.training.resume import restore
from src.training.run import Run

_SECONDS_TO_BE_SEEN = 10
# A run may begin from another's checkpoint with another rate, and evaluate otherwise; what else it goes on from must mean the same.
_MAY_DIFFER = {
    *("optim.peak_lr", "optim.lr_scaling", "optim.reference_batch_size", "optim.sam_rho", "optim.sam_every_steps"),
    *("model.weights", "model.gradient_checkpointing", "average.recalibrate_images", "average.evaluate_trained"),
    *("average.swa_lr", "average.swa_anneal_epochs"),
}


def resume(run: Run, config: Config, checkpoints: Checkpoints, classes: tuple[str, ...]) -> None:
    """Go on from the newest valid checkpoint, or from the one that was named, or start anew.

    Raises:
        ConfigError: if the checkpoint cannot be read or does not fit.
    """

    def find() -> Path | None:
        try:
            own = checkpoints.find_newest()
        except CheckpointError as error:
            raise ConfigError(STAGE, [Problem("run_name", checkpoints.folder.parent.name, str(error))]) from error
        if config.resume == "auto" or (own is not None and config.resume != "never"):
            return own
        if config.resume != "never":
            return Path(config.resume).expanduser()
        if own is not None:
            fix = f"{checkpoints.folder} holds checkpoints, which are not written over. Choose another run_name, or delete them."
            raise ConfigError(STAGE, [Problem("resume", "never", fix)])
        return None

    path = distributed.from_rank_0(find)
    require_shared(checkpoints.folder, config)
    if path is None:
        return
    state = load_on_every_rank(path, config)
    try:
        require_fit(state, path, config, classes, own=path.parent == checkpoints.folder)
        warn_of_other_pixels(run, state)
        warn_of_other_sums(run, state)
        restore(run, state)
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        fix = f"{path} does not hold what this run goes on from ({reason}). Move it away: the same command takes the one before."
        raise ConfigError(STAGE, [Problem("resume", config.resume, fix)]) from error
    if run.step > run.total_steps:
        fix = f"{path} is of step {run.step:,}, and this run has {run.total_steps:,}. Set epochs as it was, or start anew."
        raise ConfigError(STAGE, [Problem("resume", config.resume, fix)])
    if run.rank == 0:
        name = model_name(config)
        checkpoints.finish(path, run.history.top(config.keep_top_k, name), next(iter(run.history.top(1, name)), None))
    logger.info(f"resuming from {path} at step {run.step:,} of {run.total_steps:,}")


def require_shared(folder: Path, config: Config) -> None:
    """Refuse a folder that only rank 0's node sees: after a restart rank 0 may be on another node, and find nothing to go on from.

    Raises:
        ConfigError: on every rank.
    """
    if distributed.world_size() == 1:
        return

    def leave_mark() -> Path | None:
        try:
            descriptor, name = tempfile.mkstemp(dir=folder, prefix=TEMPORARY_PREFIX)
        except OSError:
            return None  # a full disk is met when it is written to
        os.close(descriptor)
        return Path(name).absolute()

    mark = distributed.from_rank_0(leave_mark)
    blind = first_to_say(None if mark is None or comes_to_light(folder / mark.name) else True)
    if mark is not None and distributed.rank() == 0:
        mark.unlink(missing_ok=True)
    if mark is not None and blind is not None:
        fix = f"{mark.parent} of rank 0 is not seen from {blind[0]}. Set runs_dir to a file system that all nodes share."
        raise ConfigError(STAGE, [Problem("runs_dir", config.runs_dir, fix)])


def comes_to_light(file: Path) -> bool:
    """Return whether the file is seen from here, within the time that a network file system may take for it."""
    until = time.monotonic() + _SECONDS_TO_BE_SEEN
    while not file.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def load_on_every_rank(path: Path, config: Config) -> dict[str, Any]:
    """Load a checkpoint.

    Raises:
        ConfigError: on every rank, if any cannot read it, or reads another than rank 0.
    """
    state, reason = None, None
    try:
        state = load_file(path)
    except CheckpointError as error:
        reason = str(error)
    failed = first_to_say(reason)
    if failed is not None:
        where, reason = failed
        several = distributed.world_size() > 1
        told = f"on {where}: {reason} All nodes must see the same file by this name." if several else reason
        raise ConfigError(STAGE, [Problem("resume", config.resume, told)])
    assert state is not None
    other = first_unlike_rank_0(digest_of(state) if distributed.world_size() > 1 else None)
    if other is not None:
        fix = f"{path} on {other} is another checkpoint than on rank 0. All nodes must see the same file by this name."
        raise ConfigError(STAGE, [Problem("resume", config.resume, fix)])
    return state


def digest_of(state: dict[str, Any]) -> str:
    """Return a hash of a checkpoint's step and weights."""
    digest = hashlib.sha256(str(state["step"]).encode())
    for name, tensor in state["model"].items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def warn_of_other_pixels(run: Run, state: dict[str, Any]) -> None:
    """Say so where an engine goes on that makes other pixels than the one before: FFCV may not be installed here."""
    before, now = state.get("pixels"), run.pixels._asdict()
    if before is not None and before != now and not (before["exact"] and now["exact"]):
        logger.warning(
            f"OTHER PIXELS: the run was trained with data.engine={before['engine']} up to step {state['step']:,}, and goes on "
            f"with {now['engine']}: same order, boxes and flips, but not the same run bit for bit."
        )


def warn_of_other_sums(run: Run, state: dict[str, Any]) -> None:
    """Say so where sums are taken in another order than before: on another number of ranks, or of a CPU's threads."""
    now = {"ranks": run.arithmetic.world_size, "threads a rank": torch.get_num_threads() if run.device.type == "cpu" else None}
    before = {"ranks": state["world_size"], "threads a rank": state.get("threads", now["threads a rank"])}
    for what, number in before.items():
        if number != now[what]:
            logger.warning(
                f"OTHER SUMS: the run was trained on {number} {what} up to step {state['step']:,}, and goes on with {now[what]}: "
                "the same images in the same steps, but sums in another order, so not the same run bit for bit."
            )


def require_fit(state: dict[str, Any], path: Path, config: Config, classes: tuple[str, ...], *, own: bool) -> None:
    """Refuse a checkpoint of other classes, or whose steps or tensors would mean something else.

    A run's own checkpoint must be of this very configuration: config.yaml, which is compared first, may be lost or damaged.

    Raises:
        ConfigError: with every difference.
    """
    problems = []
    if tuple(state["classes"]) != classes:
        fix = f"the data has {len(classes)} classes that are not the {len(state['classes'])} of {path}: labels would differ."
        problems.append(Problem("data", config.data.name, fix))
    for key, before, now in differences(config, state["config"]):
        shapes_it = key.startswith(("data.", "model.", "batch_size", "optim.", "average.")) and key not in _MAY_DIFFER
        if (own and key not in CUT_OTHERWISE) or shapes_it:
            problems.append(Problem(key, now, f"was {before} in {path}. Set it back, or train a new run."))
    if problems:
        raise ConfigError(STAGE, problems)


def is_kept(row: dict[str, Any], run: Run) -> bool:
    """Return whether a resumed run will not write this row of metrics.jsonl again."""
    if row["kind"] == "epoch":
        return any(row["step"] == entry["step"] for entry in run.history.epochs)
    return bool(row["step"] <= run.step)
