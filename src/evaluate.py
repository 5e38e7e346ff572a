"""Evaluate a checkpoint, exactly, on any number of ranks.

python -m src.evaluate checkpoint=runs/<run_name>/checkpoints/best.ckpt
python -m src.evaluate checkpoint=... weights=trained test_time_augmentation=flip
torchrun --nproc_per_node=4 -m src.evaluate checkpoint=... data.path=/another/place
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.config import Config, ConfigError, Problem, load_stored
from src.config.cli import exit_with, parse

MODULE = "src.evaluate"


def main(arguments: Sequence[str]) -> int:
    """Parse, rebuild the model from the checkpoint, and evaluate. Returns the exit code."""
    about = (
        "Evaluate a checkpoint: checkpoint=<path>, weights=evaluated|trained (an average, where the run has one, or what it "
        "averages), then values that replace its own, such as data.path=..."
    )
    line = parse(arguments, door=MODULE, about=about)
    own: dict[str, list[str]] = {"checkpoint": [], "weights": []}
    overrides: list[str] = []
    for text in line.overrides:
        key, _, value = text.partition("=")
        own.get(key, overrides).append(value if key in own else text)
    problems = []
    if len(own["checkpoint"]) != 1 or not own["checkpoint"][0]:
        problems.append(Problem("checkpoint", None, "must be given once: checkpoint=<path>."))
    if own["weights"] not in ([], ["evaluated"], ["trained"]):
        problems.append(Problem("weights", ",".join(own["weights"]), "must be given at most once, and be evaluated or trained."))
    if problems:
        exit_with(ConfigError("the command line", problems))
    from src.training.checkpoint_file import CheckpointError, load_file

    path = Path(own["checkpoint"][0]).expanduser()
    try:
        state = load_file(path)
        config = load_stored(state["config"], overrides)
    except CheckpointError as error:
        exit_with(ConfigError("the checkpoint", [Problem("checkpoint", str(path), str(error))]))
    except ConfigError as error:
        exit_with(error)
    return run(config, state, path, trained=own["weights"] == ["trained"])


def run(config: Config, state: dict[str, Any], path: Path, *, trained: bool) -> int:
    """Evaluate in this process, which is one rank."""
    from loguru import logger

    from src.batch import DataError
    from src.evaluate_run import evaluate_checkpoint
    from src.session import exit_code_after, joined
    from src.tracking.console import say_result

    with joined(config) as place:
        try:
            result = evaluate_checkpoint(config, state, path, place, trained=trained)
        except (ConfigError, DataError) as error:
            return exit_code_after(error, place)
        if place.world.leads:
            logger.info(f"acc1 {result.acc1:.3f}  acc5 {result.acc5:.3f}  loss {result.loss:.5f}  ({result.images:,} images)")
            say_result(
                json.dumps(
                    {
                        "status": "finished",
                        "checkpoint": str(path),
                        "step": state["step"],
                        "val_acc1": result.acc1,
                        "val_acc5": result.acc5,
                        "val_loss": result.loss,
                        "images": result.images,
                        "protocol": result.protocol,
                    }
                )
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
