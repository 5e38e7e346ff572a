"""A row of numbers for every image, gathered from all ranks in the order of the images: logits, or the first few classes."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.batch import Batch
from src.distributed import gather


class ImageRows:
    """Keeps what it is told of each image on this rank.

    Args:
        row_of: makes (N, C) of the logits (N, K) of a batch.
        num_images: of the split.
    """

    def __init__(self, row_of: Callable[[Tensor], Tensor], num_images: int) -> None:
        self._row_of, self._num_images = row_of, num_images
        self._ids: list[NDArray[np.int64]] = []
        self._rows: list[Tensor] = []

    @torch.no_grad()
    def __call__(self, batch: Batch, logits: Tensor) -> None:
        """Take one batch's images."""
        self._ids.append(batch.plan.ids)
        self._rows.append(self._row_of(logits).cpu())

    def gathered(self) -> Tensor:
        """Return (num_images, C) on the CPU. Every rank must call it.

        Raises:
            RuntimeError: if not every image has exactly one row.
        """
        own = (np.concatenate(self._ids), torch.cat(self._rows)) if self._ids else None
        parts = [part for part in gather(own) if part is not None]
        ids = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, np.int64)
        if not np.array_equal(np.sort(ids), np.arange(self._num_images)):
            raise RuntimeError(f"{len(np.unique(ids))} of {self._num_images} images have {len(ids)} rows, not each of them one")
        rows = torch.cat([part[1] for part in parts])
        return rows[torch.from_numpy(np.argsort(ids))]


def first_classes(logits: Tensor, count: int) -> Tensor:
    """Return the most probable classes and their probabilities, the greatest first and equal ones by label.

    Args:
        logits: (N, K).
        count: how many; at most K.

    Returns:
        float64 (N, 2 * count): labels, then probabilities.
    """
    probabilities = logits.double().softmax(dim=1)
    # A stable sort of the logits themselves: two that differ may have the same probability.
    order = logits.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return torch.cat([order.double(), probabilities.gather(1, order)], dim=1)
