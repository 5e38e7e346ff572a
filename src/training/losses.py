"""What is minimised: cross-entropy, or one yes-or-no question a class. Both take labels, or shares of mixed labels."""

from collections.abc import Callable
from typing import Literal, assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional

Criterion = Callable[[Tensor, Tensor], Tensor]


def build_criterion(
    *, loss: Literal["cross_entropy", "bce"], label_smoothing: float, bce_threshold: float | None, bce_sum_classes: bool
) -> Criterion:
    """Build the training loss.

    It takes logits (N, K) of any floating type and targets, int64 (N,) or floating (N, K) whose rows add up to 1, and returns the
    mean over the micro-batch: a scalar, float32 (float64 for float64 logits) under autocast too.

    Args:
        loss: cross_entropy (torch.nn.CrossEntropyLoss) or bce (Wightman et al. 2021, arXiv:2110.00476; timm's BinaryCrossEntropy).
        label_smoothing: s in t (1 - s) + s / K. It is linear, so that to smooth mixed targets is to mix smoothed ones.
        bce_threshold: smoothed targets above it become 1, the others 0; None: as they are.
        bce_sum_classes: sum over classes instead of their mean.
    """
    match loss:
        case "cross_entropy":
            return CrossEntropy(label_smoothing)
        case "bce":
            return BinaryCrossEntropy(label_smoothing, bce_threshold, sum_classes=bce_sum_classes)
        case _:
            assert_never(loss)


class CrossEntropy(nn.Module):
    """torch.nn.functional.cross_entropy in at least float32."""

    def __init__(self, label_smoothing: float) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the micro-batch; see build_criterion."""
        logits = at_least_float32(logits)
        if targets.is_floating_point():
            targets = targets.to(logits.dtype)
        return functional.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)


class BinaryCrossEntropy(nn.Module):
    """One yes-or-no question a class, as timm asks it.

    timm smooths mixed targets where it mixes them; here the loss smooths them, which is the same thing up to rounding.
    """

    def __init__(self, label_smoothing: float, threshold: float | None, *, sum_classes: bool) -> None:
        super().__init__()
        self.label_smoothing, self.threshold, self.sum_classes = label_smoothing, threshold, sum_classes

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the micro-batch; see build_criterion."""
        logits = at_least_float32(logits)
        targets = self._smoothed(targets, logits)
        if self.threshold is not None:
            targets = (targets > self.threshold).to(logits.dtype)
        each = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return each.sum(dim=1).mean() if self.sum_classes else each.mean()

    def _smoothed(self, targets: Tensor, logits: Tensor) -> Tensor:
        """Return targets (N, K) of the logits' type."""
        smoothing, off = self.label_smoothing, self.label_smoothing / logits.shape[1]
        if targets.is_floating_point():
            targets = targets.to(logits.dtype)
            return targets if smoothing == 0 else targets * (1 - smoothing) + off
        return torch.full_like(logits, off).scatter_(1, targets[:, None], 1 - smoothing + off)


def at_least_float32(logits: Tensor) -> Tensor:
    """Return logits as float32, or float64 where they are."""
    return logits.float() if logits.element_size() < 4 else logits
