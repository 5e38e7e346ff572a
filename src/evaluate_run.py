"""From a trained model to its accuracy, with what can be told by class."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from loguru import logger
from torch import Tensor

from src.batch import Batch, Source
from src.build import evaluate_model
from src.build_plans import eval_geometry
from src.config import Config
from src.config.evaluate import EvaluateConfig
from src.data.pillow_pixels import pillow_pixels
from src.distributed import from_rank_0
from src.ready_model import ReadyModel, engine_for, make_ready, require_same_classes, target_folder
from src.session import Place, open_val
from src.tracking import evaluation_files
from src.trained import Trained, labels_of
from src.training.comparison import Comparison, Difference
from src.training.evaluation import EvalResult, Observer
from src.training.image_rows import ImageRows
from src.training.tally import ClassCounts, Tally, class_table, worst

_WORST = 10  # classes in the log
_READ_THREADS = 8


class Evaluation(NamedTuple):
    """What was measured, and what can be told besides.

    Attributes:
        result: the figures.
        counts: by class.
        classes: by label.
        difference: what images that Pillow resized gave, or None.
    """

    result: EvalResult
    counts: ClassCounts
    classes: tuple[str, ...]
    difference: Difference | None


def evaluate_trained(trained: Trained, evaluate: EvaluateConfig, place: Place) -> Evaluation:
    """Evaluate on the whole validation split, and write what is asked for. Every rank must call it.

    Raises:
        ConfigError: if the data's classes are not the model's, if the weights do not fit it, or the target cannot be written.
        DataError: naming an image that cannot be decoded.
    """
    config, world, device = trained.config, place.world, place.device
    target = target_folder(evaluate.target)
    model = make_ready(trained, place)
    source = open_val(config, place)
    require_same_classes(trained, source)
    engine = engine_for(config, source, place)
    tally = Tally(len(source.classes), device)
    rows = ImageRows(lambda logits: logits.float(), len(source)) if evaluate.logits else None
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        others = _compared(evaluate, config, model, source, pool, device)
        observers: list[Observer] = [tally, *([rows] if rows else []), *([others] if others else [])]
        try:
            result = evaluate_model(
                config, world, device, model.module, engine, source, model.precision,
                weights=trained.weights, passing=iter, observers=observers,
            )  # fmt: skip
        finally:
            engine.close()
    done = Evaluation(result, tally.counts(), source.classes, others.difference() if others else None)
    logits = rows.gathered() if rows else None
    if target is not None:
        from_rank_0(lambda: _write(target, trained, done, source, logits))
    return done


def say(done: Evaluation) -> None:
    """Tell the figures and the worst classes in the log."""
    result = done.result
    logger.info(f"acc1 {result.acc1:.3f}  acc5 {result.acc5:.3f}  loss {result.loss:.5f}  ({result.images:,} images)")
    names = labels_of(done.classes)
    logger.info(f"the {min(_WORST, len(names))} worst of {len(names):,} classes:")
    width = max(map(len, names))
    for row in worst(class_table(done.counts, names), _WORST):
        other = "" if row.taken_for is None else f"  {row.taken_for_images:,} taken for {names[row.taken_for]}"
        logger.info(f"  {row.name:<{min(width, 30)}.30}  acc1 {row.acc1:6.2f}  acc5 {row.acc5:6.2f}  of {row.images:,}{other}")
    if done.difference is not None:
        other_way = done.difference
        logger.info(
            f"resized by Pillow: acc1 {other_way.acc1:.3f}  acc5 {other_way.acc5:.3f}, "
            f"the same class for {other_way.same_first:.3f} % of images; |logit| apart by {other_way.mean_abs_logit:.3g} (mean), "
            f"{other_way.max_abs_logit:.3g} (most); "
            f"pixels by {other_way.mean_abs_pixel:.3g} of 255"
        )


def _compared(
    evaluate: EvaluateConfig, config: Config, model: ReadyModel, source: Source, pool: ThreadPoolExecutor, device: torch.device
) -> Comparison | None:
    if evaluate.compare == "none":
        return None
    geometry = eval_geometry(config)

    def others(batch: Batch) -> Tensor:
        return pillow_pixels(source, batch.plan.ids.tolist(), geometry, pool).to(device)

    return Comparison(others, model.logits, device)


def as_json(trained: Trained, done: Evaluation) -> dict[str, Any]:
    """Return what stdout's last line says."""
    result, difference = done.result, done.difference
    told: dict[str, Any] = {
        "status": "finished",
        "checkpoint": str(trained.path),
        "kind": trained.kind,
        "step": trained.step,
        "val_acc1": result.acc1,
        "val_acc5": result.acc5,
        "val_loss": result.loss,
        "images": result.images,
        "classes": len(done.classes),
        "protocol": result.protocol,
    }
    return told | ({"pillow": difference._asdict()} if difference is not None else {})


def _write(target: Path, trained: Trained, done: Evaluation, source: Source, logits: Tensor | None) -> None:
    names = labels_of(done.classes)
    rows = class_table(done.counts, names)
    evaluation_files.write_counts(
        target,
        title=f"{trained.run or trained.path.name}: top-1 {done.result.acc1:.2f} % of {done.result.images:,} images",
        classes=done.classes,
        names=names,
        confusion=done.counts.confusion,
        no_answer=done.counts.no_answer,
        confused=done.counts.confused(),
        per_class=[(row.label, row.images, row.acc1, row.acc5, row.loss, row.taken_for, row.taken_for_images) for row in rows],
    )
    if logits is not None:
        images = [source.name(index) for index in range(len(source))]
        evaluation_files.write_logits(target, images=images, labels=source.labels, logits=logits.numpy())
    evaluation_files.write_result(target, as_json(trained, done))
