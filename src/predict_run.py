"""From a trained model and unlabelled images to what it takes them for."""

from pathlib import Path
from typing import Any

import torch
from loguru import logger

from src.build import eval_batches, loader_threads
from src.config import ConfigError, Problem
from src.config.evaluate import EvaluateConfig
from src.data.sources.flat import FlatSource, look_at_folder
from src.distributed import from_rank_0
from src.imagenet.wnids import imagenet_wnids
from src.ready_model import engine_for, make_ready, require_same_classes, target_folder
from src.session import Place, open_val, reporter
from src.tracking import evaluation_files
from src.trained import Trained, assumed_classes
from src.training.image_rows import ImageRows, first_classes

_FIRST = 5  # classes of an image that are told


def predict(trained: Trained, evaluate: EvaluateConfig, place: Place) -> int:
    """Write what a model takes the images of a folder for. Every rank must call it.

    Returns:
        how many images there were.

    Raises:
        ConfigError: if an image is bad, nothing tells the classes, or the target cannot be written.
        DataError: naming an image that cannot be decoded.
    """
    assert evaluate.test is not None
    target = target_folder(evaluate.target)
    assert target is not None
    config, root = trained.config, Path(evaluate.test).expanduser()
    model = make_ready(trained, place)
    classes = _classes(trained, place)
    if evaluate.submission == "kaggle" and classes != imagenet_wnids():
        fix = f"is about ImageNet's 1,000 classes, and these are {len(classes)} others. Leave it away."
        raise ConfigError("the command line", [Problem("submission", evaluate.submission, fix)])

    def look() -> tuple[list[str], Any]:
        with reporter(place)("reading image headers") as progress:
            return look_at_folder(root, "test", threads=loader_threads(config, place.world), progress=progress)

    source = FlatSource(root, *from_rank_0(look))
    first = min(_FIRST, len(classes))
    rows = ImageRows(lambda logits: first_classes(logits, first), len(source))
    whole = ImageRows(lambda logits: logits.float(), len(source)) if evaluate.logits else None
    engine = engine_for(config, source, place)
    try:
        with torch.no_grad():
            for batch in eval_batches(config, place.world, engine, source):
                logits = model.logits(batch.images)
                for observe in (rows, *([whole] if whole else [])):
                    observe(batch, logits)
    finally:
        engine.close()
    found, all_logits = rows.gathered(), whole.gathered() if whole else None
    labels, probabilities = found[:, :first].long().tolist(), found[:, first:].tolist()

    def write() -> None:
        files = source.names
        if all_logits is not None:
            evaluation_files.write_logits(target, images=files, labels=None, logits=all_logits.numpy())
        if evaluate.submission == "kaggle":
            evaluation_files.write_submission(target, files=files, sizes=source.sizes, labels=labels)
        evaluation_files.write_predictions(target, files=files, classes=classes, labels=labels, probabilities=probabilities)

    from_rank_0(write)
    return len(source)


def _classes(trained: Trained, place: Place) -> tuple[str, ...]:
    """Return the classes by label, of a state dict ImageNet's if there are 1,000, else the data's."""
    classes = assumed_classes(trained)
    if classes is None:
        source = open_val(trained.config, place)
        require_same_classes(trained, source)
        return source.classes
    if trained.classes is None:
        logger.warning("labels: the weights tell 1,000 classes apart, which are taken for ImageNet's wnids in their usual order")
    return classes
