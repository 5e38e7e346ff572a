"""Exact evaluation: every image of the split once, counts added over ranks, then one division."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.batch import Batch
from src.distributed import sum_over_ranks
from src.training.metrics import hits
from src.training.precision import Precision

Protocol = dict[str, str | int]


class EvalResult(NamedTuple):
    """What was measured, and how.

    Attributes:
        loss: mean cross-entropy a sample, without label smoothing.
        acc1: percent.
        acc5: percent.
        images: how many were counted.
        protocol: resize, crop, interpolation, engine, weights, test-time augmentation, split.
        trained: the same at the trained weights, where others are evaluated and both are wanted.
    """

    loss: float
    acc1: float
    acc5: float
    images: int
    protocol: Protocol
    trained: "EvalResult | None" = None


@torch.no_grad()
def count(
    model: nn.Module,
    batches: Iterator[Batch],
    *,
    normalise: Callable[[Tensor], Tensor],
    precision: Precision,
    num_images: int,
    protocol: Protocol,
    device: torch.device,
    flip: bool,
) -> EvalResult:
    """Evaluate the unwrapped module, which is in evaluation mode, on this rank's batches. Every rank must call it.

    With flip, the logits are the mean of an image's and its mirror image's (test-time augmentation; ffcv-imagenet takes the sum,
    which has the same accuracy). The loss is cross-entropy without smoothing, whatever was trained on.

    Raises:
        RuntimeError: if not exactly num_images were counted over all ranks.
    """
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    for batch in batches:
        with precision.autocast():
            images = normalise(batch.images)
            logits: Tensor = model(images)
            mirrored: Tensor | None = model(images.flip(3)) if flip else None
        if mirrored is not None:
            logits = (logits.double() + mirrored.double()) / 2
        sums[0] += functional.cross_entropy(logits.double(), batch.labels, reduction="sum")
        sums[1:3] += hits(logits, batch.labels)
        sums[3] += len(batch.labels)
    loss, top1, top5, images = sum_over_ranks(sums).tolist()
    if round(images) != num_images:
        raise RuntimeError(f"evaluation counted {images:.0f} images, but the split has {num_images}")
    return EvalResult(loss / num_images, 100 * top1 / num_images, 100 * top5 / num_images, num_images, protocol)
