"""The same images, prepared in two ways, through the same model: what the difference does to logits and accuracy."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from src.batch import Batch
from src.distributed import gather, sum_over_ranks
from src.training.metrics import hits


class Difference(NamedTuple):
    """What the other preparation gave. Percent, and logits.

    Attributes:
        acc1: of the other.
        acc5: likewise.
        same_first: percent of images for which both say the same class.
        mean_abs_logit: mean over images and classes of the absolute difference.
        max_abs_logit: the greatest.
        mean_abs_pixel: mean over images, channels and pixels, of 0-255.
    """

    acc1: float
    acc5: float
    same_first: float
    mean_abs_logit: float
    max_abs_logit: float
    mean_abs_pixel: float


class Comparison:
    """Sees every batch with its logits, and computes those of the other preparation.

    Args:
        others: makes uint8 (N, 3, S, S) of a batch, on its device.
        logits: from such pixels to logits (N, K).
        device: where the sums are.
    """

    def __init__(self, others: Callable[[Batch], Tensor], logits: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self._others, self._logits = others, logits
        self._sums = torch.zeros(7, dtype=torch.float64, device=device)  # hits, agreement, |logit|, its count, |pixel|, images
        self._greatest = torch.zeros((), dtype=torch.float64, device=device)

    @torch.no_grad()
    def __call__(self, batch: Batch, logits: Tensor) -> None:
        """Compare one batch."""
        pixels = self._others(batch)
        others = self._logits(pixels)
        apart = (others.double() - logits.double()).abs()
        self._sums[:2] += hits(others, batch.labels)
        self._sums[2] += (others.argmax(dim=1) == logits.argmax(dim=1)).sum()
        self._sums[3] += apart.sum()
        self._sums[4] += apart.numel()
        self._sums[5] += (pixels.short() - batch.images.short()).abs().double().mean() * len(pixels)
        self._sums[6] += len(pixels)
        self._greatest = torch.maximum(self._greatest, apart.max())

    def difference(self) -> Difference:
        """Return what was found over all ranks. Every rank must call it."""
        top1, top5, same, apart, logits, pixels, images = sum_over_ranks(self._sums).tolist()
        greatest = max(gather(self._greatest.item()))
        n = images or 1.0
        return Difference(100 * top1 / n, 100 * top5 / n, 100 * same / n, apart / (logits or 1.0), greatest, pixels / n)
