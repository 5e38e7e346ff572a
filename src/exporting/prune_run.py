"""From a trained model to a pruned one that was trained on, with what that cost and what it saved."""

import copy
from functools import partial
from typing import Any, NamedTuple

import torch
from loguru import logger
from torch import Tensor, nn

from src.build import evaluate_model
from src.build_model import build_live_model, memory_format
from src.config import Config, ConfigError, Problem
from src.config.identity import run_dir
from src.exporting.about import title_of
from src.exporting.finetune import STAGE, finetune, finetune_config, put_weights
from src.exporting.pruning import Size, prune_channels, prune_weights, pruned_file, size_of
from src.exporting.speed import speeds
from src.first_batch import Ready
from src.models.pruned import Kind
from src.preflight import preflight
from src.session import Place, open_sources
from src.trained import Trained, build_trained, open_trained
from src.training.evaluation import EvalResult
from src.training.precision import choose_precision

_CPU = torch.device("cpu")


class Pruning(NamedTuple):
    """What is asked for.

    Attributes:
        share: of the weights, in (0, 1).
        kind: of pruning.
        epochs: of training afterwards; 0: none.
        lr: its peak rate; None: a tenth of the run's.
        latency: whether to measure the time of a forward, before and after.
    """

    share: float
    kind: Kind
    epochs: int
    lr: float | None
    latency: bool


def prune_trained(trained: Trained, asked: Pruning, place: Place) -> tuple[Trained, dict[str, Any]]:
    """Prune a model, and train it on where that is asked for.

    Args:
        trained: what was opened. Its run's training and validation split must be there.
        asked: how.
        place: this process, which is the only one.

    Returns:
        the pruned model, and what was measured: accuracy, size and time, before and after.

    Raises:
        ConfigError: if the data is missing, or the model cannot be pruned.
        KeyboardInterrupt: while it trained; the same command goes on from there.
        Preempted: the same, asked in another way.
    """
    config = trained.config
    if trained.pruned is not None:
        fix = f"these weights are pruned already ({trained.pruned}). Give the run that they were pruned from."
        raise ConfigError(STAGE, [Problem("prune", asked.share, fix)])
    name = pruned_name(title_of(trained), asked.kind, asked.share)
    tuned = finetune_config(config, name=name, epochs=max(1, asked.epochs), lr=asked.lr)
    with preflight(tuned, place, open_sources) as ready:
        classes = ready.train.classes
        if trained.classes not in (None, classes):
            fix = f"its {len(classes)} classes are not those that {trained.path} was trained on."
            raise ConfigError("the data", [Problem("data", config.data.name, fix)])
        whole = build_trained(trained, choose_precision("fp32", _CPU), _CPU, num_classes=len(classes))
        size = config.data.eval_image_size
        image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        before = _measured(config, place, whole, ready, trained.weights)
        smaller = _pruned(whole, asked, image, config, num_classes=len(classes))
        pruned = _measured(config, place, smaller, ready, trained.weights)
        logger.info(f"top-1 {before.acc1:.3f} %; with {asked.share:.0%} of the weights gone ({asked.kind}) {pruned.acc1:.3f} %")
        data = pruned_file(smaller, asked.kind)
        result: EvalResult | None = None
        if asked.epochs:
            put_weights(tuned, data)
            result = finetune(tuned, place, ready)
            logger.info(f"after {asked.epochs} epochs of training: top-1 {result.acc1:.3f} %")
    ours = trained.kind if trained.kind != "state_dict" else "checkpoint"  # from now on the weights tell how wide the layers are
    made = trained._replace(kind=ours, classes=classes, state_dict=smaller.state_dict(), run=name, history=(), pruned=asked.kind)
    if result is not None:  # the last epoch's, not the best one's: nothing was chosen on the split that tells the accuracy
        made = open_trained(run_dir(tuned) / "checkpoints" / "last.ckpt", [])._replace(pruned=asked.kind)
        smaller = build_trained(made, choose_precision("fp32", _CPU), _CPU)
    told: dict[str, Any] = {"kind": asked.kind, "share": asked.share, "epochs": asked.epochs, "images": before.images}
    told |= {"run_dir": str(run_dir(tuned)) if asked.epochs else None, "lr": tuned.optim.peak_lr if asked.epochs else None}
    told |= {"before": _figures(before, size_of(whole, image)), "pruned": _figures(pruned, None)}
    told |= {"after": _figures(result or pruned, size_of(smaller, image))}
    told["lost_points"] = round(before.acc1 - (result or pruned).acc1, 6)
    if asked.latency:
        logger.info("measuring latency before and after pruning")
        told["latency"] = speeds({"before": partial(_run, whole), "after": partial(_run, smaller)}, size)
    return made, told


def pruned_name(title: str, kind: Kind, share: float) -> str:
    """Return the name of the run that trains a pruned model on, and of its export."""
    return f"{title}-{kind}-{share:g}"


def _pruned(whole: nn.Module, asked: Pruning, image: Tensor, config: Config, *, num_classes: int) -> nn.Module:
    if asked.kind == "channels":
        build = partial(build_live_model, config, choose_precision("fp32", _CPU), _CPU, num_classes=num_classes)
        return prune_channels(whole, asked.share, image, build)
    smaller = copy.deepcopy(whole)
    prune_weights(smaller, asked.share)
    return smaller.to(memory_format=memory_format(config))


def _measured(config: Config, place: Place, model: nn.Module, ready: Ready, weights: str) -> EvalResult:
    """Evaluate as the run does, on its device and in its precision."""
    precision = choose_precision(config.precision, place.device)
    model = copy.deepcopy(model).to(place.device, precision.weights).eval()
    engine, source = ready.engines.val, ready.val
    return evaluate_model(config, place.world, place.device, model, engine, source, precision, weights=weights, passing=iter)


def _figures(result: EvalResult, size: Size | None) -> dict[str, Any]:
    figures: dict[str, Any] = {"acc1": result.acc1, "acc5": result.acc5, "loss": result.loss}
    return figures if size is None else {**figures, **size._asdict()}


def _run(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(images)
    return logits
