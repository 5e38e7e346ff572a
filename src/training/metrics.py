"""Counts that stay on the device: sums of loss, hits and images in float64. Divide at the end, never average averages."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from src.batch import BatchPlan
from src.distributed import sum_over_ranks
from src.training.ledger import Ledger, NoLedger

_ON_DEVICE = 3  # sums that stay on the device: loss, two kinds of hits
_COUNTED_AT_ONCE = 16  # micro-batches: a dozen small operations cost as much for all of them as for one


class Means(NamedTuple):
    """Means over `images` samples.

    Attributes:
        loss: a sample, as trained on.
        acc1: percent; of mixed images, by the label with the greater share.
        acc5: percent.
        images: how many were counted.
        replaced: how many took the place of bad ones.
        watched: further means, such as how strongly images were augmented, by name.
    """

    loss: float
    acc1: float
    acc5: float
    images: int
    replaced: int
    watched: Mapping[str, float]

    def values(self) -> dict[str, float]:
        """Return them by the metrics' names."""
        values: dict[str, float] = {"train/loss": self.loss, "train/acc1": self.acc1, "train/acc5": self.acc5}
        values["data/bad_images"] = self.replaced
        return values | {f"augment/{name}": value for name, value in self.watched.items()}


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Count top-1 and top-5 hits. See `among_the_first`.

    Args:
        logits: (N, K).
        labels: int64 (N,).

    Returns:
        int64 (2,).
    """
    return among_the_first(logits, labels).sum(dim=0)


def among_the_first(logits: Tensor, labels: Tensor) -> Tensor:
    """Tell of each image whether its label is the first, and whether it is among the first five.

    The label's rank is the number of classes before it: higher logits, and equal ones of a lower class, as argmax decides. So a
    tie counts the same on every device, and a row of NaN is no hit.

    Args:
        logits: (N, K).
        labels: int64 (N,).

    Returns:
        bool (N, 2).
    """
    column = labels[:, None]
    own = logits.gather(1, column)
    # Classes that are not before the label: lower logits, itself, and equal ones of a higher class. Nothing compares with a NaN.
    classes, enough = _constants(logits.shape[1], logits.device)
    behind = (logits <= own).logical_xor_((logits == own).logical_and_(classes < column)).sum(dim=1, keepdim=True)
    return behind > enough


@cache
def _constants(num_classes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the classes, and how many must be exceeded behind a label that is among the first 1 and the first 5."""
    return torch.arange(num_classes, device=device), torch.tensor([num_classes - 1, max(0, num_classes - 5)], device=device)


class Meter:
    """Sums over an epoch, on this rank, and over the window since the last log.

    Args:
        device: where loss and hits are summed.
        watched: names of what else is summed, on the host.
    """

    def __init__(self, device: torch.device, watched: Sequence[str] = ()) -> None:
        self.ledger: Ledger | NoLedger = NoLedger()
        self._sums = torch.zeros(_ON_DEVICE, dtype=torch.float64, device=device)  # loss, top-1 hits, top-5 hits
        self._loss, self._hits = self._sums[0], self._sums[1:]  # views
        self._waiting: list[tuple[Tensor, Tensor]] = []  # logits and labels whose hits are not counted yet
        self._watched = tuple(watched)
        self._counts = [0.0] * (2 + len(self._watched))  # images, replaced ones, what is watched
        self._logged_sums, self._logged_counts = self._sums.clone(), list(self._counts)

    @torch.no_grad()
    def update(
        self, loss: Tensor, logits: Tensor, targets: Tensor, replaced: int = 0, strengths: Mapping[str, float] | None = None
    ) -> None:
        """Add one micro-batch. Never waits for the device.

        Args:
            loss: scalar mean over the micro-batch.
            logits: (N, K).
            targets: int64 (N,), or (N, K) shares of mixed labels: then the greatest counts.
            replaced: how many of them took the place of bad images.
            strengths: sums over the micro-batch of what is watched.
        """
        self._loss.add_(loss, alpha=len(targets))
        self._counts[0] += len(targets)
        self._counts[1] += replaced
        for place, name in enumerate(self._watched, start=2):
            assert strengths is not None
            self._counts[place] += strengths[name]
        labels = targets.clone() if targets.ndim == 1 else targets.argmax(dim=1)  # the engine reuses the memory of its labels
        self._waiting.append((logits.detach(), labels))
        if len(self._waiting) == _COUNTED_AT_ONCE:
            self._count()

    def note(self, step: int, slot: int, loss: Tensor, plan: BatchPlan) -> None:
        """Enter one micro-batch in the ledger. Never waits for the device. See Ledger.note."""
        self.ledger.note(step, slot, loss, plan)

    def window(self) -> Means:
        """Return the means over all ranks since the last call. Waits for the device; every rank must call it."""
        self._count()
        counts = [now - before for now, before in zip(self._counts, self._logged_counts, strict=True)]
        means = self._means(self._sums - self._logged_sums, counts)
        self._logged_sums.copy_(self._sums)
        self._logged_counts = list(self._counts)
        return means

    def epoch(self) -> Means:
        """Return the means over all ranks since the last call of this, and start anew."""
        self._count()
        means = self._means(self._sums, self._counts)
        self.load(torch.zeros(2, _ON_DEVICE + len(self._counts), dtype=torch.float64))
        return means

    def state(self) -> Tensor:
        """Return everything as float64 (2, 5 + W) on the CPU: loss, hits and counts of the epoch, and of it what was logged."""
        self._count()
        sums = torch.stack([self._sums, self._logged_sums]).cpu()
        return torch.cat([sums, torch.tensor([self._counts, self._logged_counts], dtype=torch.float64)], dim=1)

    def load(self, state: Tensor) -> None:
        """Go on from a state."""
        self._waiting.clear()
        self._sums.copy_(state[0, :_ON_DEVICE])
        self._logged_sums.copy_(state[1, :_ON_DEVICE])
        self._counts, self._logged_counts = state[:, _ON_DEVICE:].tolist()

    @torch.no_grad()
    def _count(self) -> None:
        """Count the hits that wait. They are whole numbers, so it does not matter how many are counted together."""
        if self._waiting:
            logits, labels = zip(*self._waiting, strict=True)
            self._hits.add_(hits(torch.cat(logits), torch.cat(labels)))
            self._waiting.clear()

    def _means(self, sums: Tensor, counts: Sequence[float]) -> Means:
        """Add sums and counts over ranks, and divide."""
        loss, top1, top5, images, replaced, *watched = sum_over_ranks(torch.cat([sums, sums.new_tensor(counts)])).tolist()
        n = images or 1.0
        more = {name: value / n for name, value in zip(self._watched, watched, strict=True)}
        return Means(loss / n, 100 * top1 / n, 100 * top5 / n, round(images), round(replaced), more)


class NotMeasured:
    """A meter that measures nothing: of a step's second pass."""

    def update(self, *_: object) -> None:
        """Do nothing."""

    def note(self, *_: object) -> None:
        """Do nothing."""
