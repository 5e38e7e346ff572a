"""Counts that stay on the device: sums of loss, hits and images in float64. Divide at the end, never average averages."""

from typing import NamedTuple

import torch
from torch import Tensor

from src.distributed import sum_over_ranks

_SUMS = 4  # loss, top-1 hits, top-5 hits, images


class Means(NamedTuple):
    """Loss a sample, and top-1 and top-5 in percent, over `images` samples."""

    loss: float
    acc1: float
    acc5: float
    images: int


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Count top-1 and top-5 hits.

    The label's rank is the number of classes before it: higher logits, and equal ones of a lower class, as argmax decides. So a
    tie counts the same on every device, and a row of NaN is no hit.

    Args:
        logits: (N, K).
        labels: int64 (N,).

    Returns:
        int64 (2,).
    """
    column = labels[:, None]
    own = logits.gather(1, column)
    # "not less or equal" rather than "greater": a NaN anywhere pushes the label back.
    before = (~(logits <= own)) | ((logits == own) & (torch.arange(logits.shape[1], device=logits.device) < column))
    place = before.sum(dim=1)
    return torch.stack([(place < 1).sum(), (place < 5).sum()])


class Meter:
    """Sums over an epoch, on this rank, and over the window since the last log."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(_SUMS, dtype=torch.float64, device=device)
        self._logged = self.sums.clone()

    @torch.no_grad()
    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add one micro-batch. Never waits for the device.

        Args:
            loss: scalar mean over the micro-batch.
            logits: (N, K).
            labels: int64 (N,).
        """
        count = len(labels)
        counted = hits(logits.detach(), labels)
        self.sums[0] += loss.detach().double() * count
        self.sums[1:3] += counted
        self.sums[3] += count

    def window(self) -> Means:
        """Return the means over all ranks since the last call. Waits for the device; every rank must call it."""
        means = reduce_means(self.sums - self._logged)
        self._logged.copy_(self.sums)
        return means

    def epoch(self) -> Means:
        """Return the means over all ranks since the last call of this, and start anew."""
        means = reduce_means(self.sums)
        self.sums.zero_()
        self._logged.zero_()
        return means

    def state(self) -> Tensor:
        """Return everything as float64 (2, 4) on the CPU."""
        return torch.stack([self.sums, self._logged]).cpu()

    def load(self, state: Tensor) -> None:
        """Go on from a state."""
        self.sums.copy_(state[0])
        self._logged.copy_(state[1])


def reduce_means(sums: Tensor) -> Means:
    """Add float64 (4,) over ranks and divide."""
    loss, top1, top5, images = sum_over_ranks(sums).tolist()
    if images == 0:
        return Means(0.0, 0.0, 0.0, 0)
    return Means(loss / images, 100 * top1 / images, 100 * top5 / images, round(images))
