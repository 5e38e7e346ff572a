"""Evaluate a model, exactly, on any number of ranks; or write what it takes unlabelled images for.

python -m src.evaluate checkpoint=runs/<run_name>
python -m src.evaluate checkpoint=runs/<run_name>/checkpoints/last.ckpt weights=trained test_time_augmentation=flip
torchrun --nproc_per_node=4 -m src.evaluate checkpoint=runs/<run_name> data=tar data.path=/another/place target=figures
python -m src.evaluate checkpoint=resnet50-11ad3fa6.pth model=resnet50 data=imagefolder data.path=/datasets/imagenet
python -m src.evaluate checkpoint=runs/<run_name> test=/datasets/imagenet/test target=predictions submission=kaggle
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src.config import ConfigError, Problem
from src.config.door import STAGE, door, parser_of
from src.config.evaluate import EvaluateConfig, load_evaluate

if TYPE_CHECKING:  # --help answers without torch
    from src.trained import Trained

_EXAMPLES = """what to type:
  checkpoint=runs/<run_name>                       a run of ours: its best checkpoint, on its own data
  checkpoint=... data=tar data.path=/elsewhere     another loader or place; images are prepared as the run has it
  checkpoint=weights.pth model=resnet50 data=imagefolder data.path=/datasets/imagenet
                                                   a state dict of torchvision's, timm's (model=timm/<name>) or anybody's
  checkpoint=... target=figures                    the table by class, the confusion matrix and its picture, too
  checkpoint=... test=<folder> target=<folder>     no labels: predictions.csv
Every other key is the trainer's, such as eval_batch_size, precision, test_time_augmentation, data.val_path.

keys:
"""


@door
def main(arguments: Sequence[str]) -> int:
    """Parse, open the model, and evaluate. Returns the exit code."""
    line = _parser().parse_intermixed_args(arguments)
    if line.config_dir is not None and not line.config_dir.is_dir():
        fix = "no such folder. Make it, or correct its path."
        raise ConfigError(STAGE, [Problem("--config-dir", str(line.config_dir), fix)])
    evaluate, overrides = load_evaluate(line.words)
    from src.trained import open_trained

    assert evaluate.checkpoint is not None
    path = Path(evaluate.checkpoint)
    trained = open_trained(path, overrides, trained=evaluate.weights == "trained", config_dir=line.config_dir)
    return run(trained, evaluate)


def _parser() -> argparse.ArgumentParser:
    about = "Evaluate a model, exactly, on any number of ranks; or write what it takes unlabelled images for."
    parser = parser_of("evaluate", about, before=_EXAMPLES)
    parser.add_argument("--config-dir", type=Path, help="a folder with groups of your own, searched beside conf/")
    return parser


def run(trained: "Trained", evaluate: EvaluateConfig) -> int:
    """Evaluate in this process, which is one rank."""
    from src.batch import DataError
    from src.evaluate_run import as_json, evaluate_trained, say
    from src.predict_run import predict
    from src.session import exit_code_after, joined
    from src.tracking.console import say_result

    with joined(trained.config) as place:
        try:
            if evaluate.test is not None:
                images = predict(trained, evaluate, place)
                told = {"status": "finished", "checkpoint": str(trained.path), "images": images}
            else:
                done = evaluate_trained(trained, evaluate, place)
                told = as_json(trained, done)
                if place.world.leads:
                    say(done)
        except (ConfigError, DataError) as error:
            return exit_code_after(error, place)
        except OSError as error:
            return exit_code_after(DataError(f"{error.filename or 'a file'} cannot be used: {error.strerror or error}"), place)
        if place.world.leads:
            say_result(json.dumps(told | ({"target": evaluate.target} if evaluate.target is not None else {})))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
