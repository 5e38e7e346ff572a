"""From a trained model to its accuracy, with what can be told by class; and from unlabelled images to their predictions."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from loguru import logger
from torch import Tensor, nn

from src.batch import Batch, Engine, ResizeCentreCrop, Source
from src.build import eval_batches, evaluate_model, loader_threads, stuck_seconds
from src.build_model import build_normalise
from src.config import Config, ConfigError, Problem
from src.config.evaluate import EvaluateConfig
from src.data.build_engine import build_engine, choose_engine, engine_problems
from src.data.pillow_pixels import pillow_pixels
from src.data.sources.flat import FlatSource, look_at_folder
from src.distributed import from_rank_0
from src.imagenet.wnids import imagenet_wnids
from src.session import Place, open_val, reporter
from src.tracking import evaluation_files
from src.trained import Trained, assumed_classes, build_trained, labels_of, other_number
from src.training.comparison import Comparison, Difference
from src.training.evaluation import EvalResult, Observer, logits_of
from src.training.image_rows import ImageRows, first_classes
from src.training.precision import Precision, choose_precision
from src.training.tally import ClassCounts, Tally, class_table, worst

_FIRST, _WORST = 5, 10
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


class _Model(NamedTuple):
    """A model that is ready to be asked, and how its images are prepared."""

    module: nn.Module
    precision: Precision
    normalise: Callable[[Tensor], Tensor]
    flip: bool

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of uint8 (N, 3, S, S)."""
        with self.precision.autocast():
            return logits_of(self.module, self.normalise(images), flip=self.flip)


def evaluate_trained(trained: Trained, evaluate: EvaluateConfig, place: Place) -> Evaluation:
    """Evaluate on the whole validation split, and write what is asked for. Every rank must call it.

    Raises:
        ConfigError: if the data's classes are not the model's, if the weights do not fit it, or the target cannot be written.
        DataError: naming an image that cannot be decoded.
    """
    config, world, device = trained.config, place.world, place.device
    target = _prepared(evaluate.target)
    model = _ready(trained, place)
    source = open_val(config, place)
    _require_same_classes(trained, source)
    engine = _engine(config, source, place)
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


def predict(trained: Trained, evaluate: EvaluateConfig, place: Place) -> int:
    """Write what a model takes the images of a folder for. Every rank must call it.

    Returns:
        how many images there were.

    Raises:
        ConfigError: if an image is bad, nothing tells the classes, or the target cannot be written.
        DataError: naming an image that cannot be decoded.
    """
    assert evaluate.test is not None
    target = _prepared(evaluate.target)
    assert target is not None
    config, root = trained.config, Path(evaluate.test).expanduser()
    model = _ready(trained, place)
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
    engine = _engine(config, source, place)
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


def _ready(trained: Trained, place: Place) -> _Model:
    config = trained.config
    if problems := engine_problems(config.data, place.device):
        raise ConfigError("the data", problems)
    precision = choose_precision(config.precision, place.device)
    module = build_trained(trained, precision, place.device)
    data = config.data
    logger.info(
        f"images: shorter side to {data.resize_size} px, centre {data.eval_image_size} px, {data.eval_interpolation}, antialiased, "
        f"on decoded tensors; mean {list(data.mean)}, std {list(data.std)}"
    )
    flip = config.test_time_augmentation == "flip"
    return _Model(module, precision, build_normalise(config, precision, place.device), flip)


def _engine(config: Config, source: Source, place: Place) -> Engine:
    threads, limit = loader_threads(config, place.world), stuck_seconds(config)
    name = choose_engine(config.data)
    if isinstance(source, FlatSource) and name == "ffcv":
        name = "torchvision"  # reads any source, and its pixels are those of evaluation's definition
    return build_engine(config.data, name, source, device=place.device, threads=threads, stuck_seconds=limit)


def _compared(
    evaluate: EvaluateConfig, config: Config, model: _Model, source: Source, pool: ThreadPoolExecutor, device: torch.device
) -> Comparison | None:
    if evaluate.compare == "none":
        return None
    data = config.data
    geometry = ResizeCentreCrop(data.resize_size, data.eval_image_size, data.eval_interpolation)

    def others(batch: Batch) -> Tensor:
        return pillow_pixels(source, batch.plan.ids.tolist(), geometry, pool).to(device)

    return Comparison(others, model.logits, device)


def _require_same_classes(trained: Trained, source: Source) -> None:
    count = len(source.classes)
    if trained.classes is None:
        if trained.num_classes != count:
            raise other_number(trained, trained.num_classes, count)
        usual = " (ImageNet's wnids, the usual order)" if source.classes == imagenet_wnids() else ""
        logger.info(f"labels: {count:,} classes in the sorted order of the data's{usual}: {', '.join(source.classes[:3])}, ...")
    elif tuple(trained.classes) != source.classes:
        fix = f"its {count} classes are not the {len(trained.classes)} that {trained.path} was trained on."
        raise ConfigError("the data", [Problem("data", trained.config.data.name, fix)])


def _classes(trained: Trained, place: Place) -> tuple[str, ...]:
    """Return the classes by label, of a state dict ImageNet's if there are 1,000, else the data's."""
    classes = assumed_classes(trained)
    if classes is None:
        source = open_val(trained.config, place)
        _require_same_classes(trained, source)
        return source.classes
    if trained.classes is None:
        logger.warning("labels: the weights tell 1,000 classes apart, which are taken for ImageNet's wnids in their usual order")
    return classes


def _prepared(target: str | None) -> Path | None:
    """Make the folder, before anything is computed."""
    if target is None:
        return None
    path = Path(target).expanduser()

    def make() -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fix = f"cannot be made a folder ({error.strerror}). Give one that can be written."
            raise ConfigError("the command line", [Problem("target", target, fix)]) from error

    from_rank_0(make)
    return path


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
