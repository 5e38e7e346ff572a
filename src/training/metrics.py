"""Counts that stay on the device: sums of loss, hits and images in float64. Divide at the end, never average averages."""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from src.distributed import sum_over_ranks

_STATE = 5  # numbers that describe a sum: loss, two kinds of hits, images, replaced ones
_COUNTED_AT_ONCE = 16  # micro-batches: a dozen small operations cost as much for all of them as for one


class Means(NamedTuple):
    """Loss a sample, and top-1 and top-5 in percent, over `images` samples, of which `replaced` took the place of bad ones."""

    loss: float
    acc1: float
    acc5: float
    images: int
    replaced: int = 0


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
    # Classes that are not before the label: lower logits, itself, and equal ones of a higher class. Nothing compares with a NaN.
    classes, enough = _constants(logits.shape[1], logits.device)
    behind = (logits <= own).logical_xor_((logits == own).logical_and_(classes < column)).sum(dim=1, keepdim=True)
    return (behind > enough).sum(dim=0)


@cache
def _constants(num_classes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the classes, and how many must be exceeded behind a label that is among the first 1 and the first 5."""
    return torch.arange(num_classes, device=device), torch.tensor([num_classes - 1, max(0, num_classes - 5)], device=device)


class Meter:
    """Sums over an epoch, on this rank, and over the window since the last log."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, top-1 hits, top-5 hits
        self._loss, self._hits = self._sums[0], self._sums[1:]  # views
        self._waiting: list[tuple[Tensor, Tensor]] = []  # logits and labels whose hits are not counted yet
        self._images = self._replaced = 0
        self._logged_sums, self._logged_images, self._logged_replaced = self._sums.clone(), 0, 0

    @torch.no_grad()
    def update(self, loss: Tensor, logits: Tensor, labels: Tensor, replaced: int = 0) -> None:
        """Add one micro-batch. Never waits for the device.

        Args:
            loss: scalar mean over the micro-batch.
            logits: (N, K).
            labels: int64 (N,).
            replaced: how many of them took the place of bad images.
        """
        self._loss.add_(loss, alpha=len(labels))
        self._images += len(labels)
        self._replaced += replaced
        self._waiting.append((logits.detach(), labels.clone()))  # the engine reuses the memory of its labels
        if len(self._waiting) == _COUNTED_AT_ONCE:
            self._count()

    def window(self) -> Means:
        """Return the means over all ranks since the last call. Waits for the device; every rank must call it."""
        self._count()
        counts = self._images - self._logged_images, self._replaced - self._logged_replaced
        means = reduce_means(self._sums - self._logged_sums, *counts)
        self._logged_sums.copy_(self._sums)
        self._logged_images, self._logged_replaced = self._images, self._replaced
        return means

    def epoch(self) -> Means:
        """Return the means over all ranks since the last call of this, and start anew."""
        self._count()
        means = reduce_means(self._sums, self._images, self._replaced)
        self.load(torch.zeros(2, _STATE, dtype=torch.float64))
        return means

    def state(self) -> Tensor:
        """Return everything as float64 (2, 5) on the CPU: loss, hits and images of the epoch, and of it what was logged."""
        self._count()
        sums = torch.stack([self._sums, self._logged_sums]).cpu()
        counts = [[self._images, self._replaced], [self._logged_images, self._logged_replaced]]
        return torch.cat([sums, torch.tensor(counts, dtype=torch.float64)], dim=1)

    def load(self, state: Tensor) -> None:
        """Go on from a state."""
        self._waiting.clear()
        self._sums.copy_(state[0, :3])
        self._logged_sums.copy_(state[1, :3])
        (self._images, self._replaced), (self._logged_images, self._logged_replaced) = state[:, 3:].round().long().tolist()

    @torch.no_grad()
    def _count(self) -> None:
        """Count the hits that wait. They are whole numbers, so it does not matter how many are counted together."""
        if self._waiting:
            logits, labels = zip(*self._waiting, strict=True)
            self._hits.add_(hits(torch.cat(logits), torch.cat(labels)))
            self._waiting.clear()


def reduce_means(sums: Tensor, count: int, replaced: int = 0) -> Means:
    """Add float64 (3,) sums of loss and hits, and the counts, over ranks, and divide."""
    loss, top1, top5, images, bad = sum_over_ranks(torch.cat([sums, sums.new_tensor([count, replaced])])).tolist()
    if images == 0:
        return Means(0.0, 0.0, 0.0, 0)
    return Means(loss / images, 100 * top1 / images, 100 * top5 / images, round(images), round(bad))
