"""Exact evaluation: every image of the split once, counts added over ranks, then one division."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.batch import Batch
from src.distributed import sum_over_ranks
from src.training.metrics import hits
from src.training.precision import Precision

Protocol = dict[str, str | int]
Observer = Callable[[Batch, Tensor], None]  # gets each batch of this rank with its logits (N, K), before the next is asked for


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
    observers: Sequence[Observer] = (),
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
            logits = logits_of(model, normalise(batch.images), flip=flip)
        sums[0] += functional.cross_entropy(logits.double(), batch.labels, reduction="sum")
        sums[1:3] += hits(logits, batch.labels)
        sums[3] += len(batch.labels)
        for observe in observers:
            observe(batch, logits)
    loss, top1, top5, images = sum_over_ranks(sums).tolist()
    if round(images) != num_images:
        raise RuntimeError(f"evaluation counted {images:.0f} images, but the split has {num_images}")
    return EvalResult(loss / num_images, 100 * top1 / num_images, 100 * top5 / num_images, num_images, protocol)


def logits_of(model: nn.Module, images: Tensor, *, flip: bool) -> Tensor:
    """Return the logits (N, K) of normalised images; with flip in float64, the mean over an image and its mirror image."""
    logits: Tensor = model(images)
    if not flip:
        return logits
    mirrored: Tensor = model(images.flip(3))
    return (logits.double() + mirrored.double()) / 2
