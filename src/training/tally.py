"""Counts by class: which class is taken for which, top-5 hits, and the loss. They stay on the device until they are asked for."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from src.batch import Batch
from src.distributed import sum_over_ranks
from src.training.metrics import among_the_first


class ClassCounts(NamedTuple):
    """What was counted over all ranks, of K classes. A class's row holds the images that are of it.

    Attributes:
        confusion: int64 (K, K), images of class i that were taken for class j.
        no_answer: int64 (K,), images whose logits hold a NaN: they were taken for nothing.
        top5: int64 (K,), images whose class is among the first five.
        loss: float64 (K,), sum of the cross-entropy.
    """

    confusion: NDArray[np.int64]
    no_answer: NDArray[np.int64]
    top5: NDArray[np.int64]
    loss: NDArray[np.float64]

    @property
    def images(self) -> NDArray[np.int64]:
        """int64 (K,), images of each class."""
        images: NDArray[np.int64] = self.confusion.sum(axis=1) + self.no_answer
        return images

    @property
    def top1(self) -> NDArray[np.int64]:
        """int64 (K,), images that were taken for what they are."""
        return self.confusion.diagonal()

    def confused(self) -> "list[Confused]":
        """Return every pair of classes of which one was taken for the other, the most frequent first, then by label."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        rows, columns = np.nonzero(wrong)
        order = np.lexsort((columns, rows, -wrong[rows, columns]))
        return [Confused(int(rows[at]), int(columns[at]), int(wrong[rows[at], columns[at]])) for at in order]


class Confused(NamedTuple):
    """So many images of one class that were taken for another, by their labels."""

    label: int
    taken_for: int
    images: int


class Tally:
    """Counts this rank's batches. Whole numbers are exact on any number of ranks; the loss is summed in float64.

    Args:
        num_classes: K.
        device: where the logits are.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._classes = num_classes
        # One more column, for rows of which a NaN says nothing: a row of NaN is no hit (see among_the_first).
        self._confusion = torch.zeros(num_classes * (num_classes + 1), dtype=torch.int64, device=device)
        self._top5 = torch.zeros(num_classes, dtype=torch.int64, device=device)
        self._loss = torch.zeros(num_classes, dtype=torch.float64, device=device)

    @torch.no_grad()
    def __call__(self, batch: Batch, logits: Tensor) -> None:
        """Count one batch.

        Args:
            batch: its labels are read.
            logits: (N, K).
        """
        labels = batch.labels
        first = logits.argmax(dim=1).masked_fill(logits.isnan().any(dim=1), self._classes)
        self._confusion.index_add_(0, labels * (self._classes + 1) + first, torch.ones_like(labels))
        self._top5.index_add_(0, labels, among_the_first(logits, labels)[:, 1].long())
        self._loss.index_add_(0, labels, functional.cross_entropy(logits.double(), labels, reduction="none"))

    def counts(self) -> ClassCounts:
        """Return the sums over all ranks. Waits for the device; every rank must call it."""
        whole = sum_over_ranks(torch.cat([self._confusion, self._top5])).cpu().numpy()
        loss: NDArray[np.float64] = sum_over_ranks(self._loss).cpu().numpy()
        confusion = whole[: -self._classes].reshape(self._classes, self._classes + 1)
        return ClassCounts(confusion[:, :-1].copy(), confusion[:, -1].copy(), whole[-self._classes :].copy(), loss)


class ClassRow(NamedTuple):
    """One class in the table. Percent, and None where it has no images, or none was taken for another."""

    label: int
    name: str
    images: int
    acc1: float | None
    acc5: float | None
    loss: float | None
    taken_for: int | None
    taken_for_images: int


def class_table(counts: ClassCounts, names: Sequence[str]) -> list[ClassRow]:
    """Return a row for each class, by label, with the other class that it was taken for most often (of two the lower label)."""
    wrong = counts.confusion.copy()
    np.fill_diagonal(wrong, 0)
    rows = []
    for label, (name, images) in enumerate(zip(names, counts.images.tolist(), strict=True)):
        other = int(wrong[label].argmax())
        times = int(wrong[label, other])
        rows.append(
            ClassRow(
                label=label,
                name=name,
                images=images,
                acc1=100 * int(counts.top1[label]) / images if images else None,
                acc5=100 * int(counts.top5[label]) / images if images else None,
                loss=float(counts.loss[label]) / images if images else None,
                taken_for=other if times else None,
                taken_for_images=times,
            )
        )
    return rows


def worst(rows: Sequence[ClassRow], count: int) -> list[ClassRow]:
    """Return the classes of the lowest top-1, the lowest first, then those of the greater loss; classes without images are none."""
    seen = [row for row in rows if row.acc1 is not None]
    return sorted(seen, key=lambda row: (row.acc1, -(row.loss or 0.0)))[:count]
