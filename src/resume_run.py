"""Going on from a checkpoint: which one, whether it fits, and what of the written records stays."""

from pathlib import Path
from typing import Any

from loguru import logger

from src import distributed
from src.config import Config, ConfigError, Problem
from src.config.identity import differences
from src.tracking.run_folder import STAGE
from src.training.checkpoint import CheckpointError, Checkpoints, load_file
from src.training.resume import restore
from src.training.run import Run

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
    if path is None:
        return
    try:
        state = load_file(path)
    except CheckpointError as error:
        raise ConfigError(STAGE, [Problem("resume", config.resume, str(error))]) from error
    require_fit(state, path, config, classes)
    warn_of_other_pixels(run, state)
    restore(run, state)
    logger.info(f"resuming from {path} at step {run.step:,} of {run.total_steps:,}")


def warn_of_other_pixels(run: Run, state: dict[str, Any]) -> None:
    """Say so where an engine goes on that makes other pixels than the one before: FFCV may not be installed here."""
    before, now = state.get("pixels"), run.pixels._asdict()
    if before is not None and before != now and not (before["exact"] and now["exact"]):
        logger.warning(
            f"OTHER PIXELS: the run was trained with data.engine={before['engine']} up to step {state['step']:,}, and goes on "
            f"with {now['engine']}: same order, boxes and flips, but not the same run bit for bit."
        )


def require_fit(state: dict[str, Any], path: Path, config: Config, classes: tuple[str, ...]) -> None:
    """Refuse a checkpoint of other classes, or whose steps or tensors would mean something else.

    Raises:
        ConfigError: with every difference.
    """
    problems = []
    if tuple(state["classes"]) != classes:
        fix = f"the data has {len(classes)} classes that are not the {len(state['classes'])} of {path}: labels would differ."
        problems.append(Problem("data", config.data.name, fix))
    for key, before, now in differences(config, state["config"]):
        if key.startswith(("data.", "model.", "batch_size", "optim.", "average.")) and key not in _MAY_DIFFER:
            problems.append(Problem(key, now, f"was {before} in {path}. Set it back, or train a new run."))
    if problems:
        raise ConfigError(STAGE, problems)


def is_kept(row: dict[str, Any], run: Run) -> bool:
    """Return whether a resumed run will not write this row of metrics.jsonl again."""
    if row["kind"] == "epoch":
        return any(row["step"] == entry["step"] for entry in run.history.epochs)
    return bool(row["step"] <= run.step)
