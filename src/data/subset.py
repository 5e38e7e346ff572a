"""Class-balanced subsets of a split: deterministic, nested (a smaller one lies in a larger one), independent of the run's seed."""

import numpy as np
from numpy.typing import NDArray

from src.batch import Encoded, Source
from src.draws import Purpose, hash_words


def choose_subset(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Choose `count` samples, as evenly over the classes as they allow.

    Args:
        labels: int64 (n,).
        count: at most n.

    Returns:
        int64 (count,), ascending.
    """
    assert count <= len(labels)
    shuffled = np.argsort(hash_words(int(Purpose.SUBSET), np.arange(len(labels))), kind="stable")
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    starts = np.flatnonzero(np.r_[True, np.diff(labels[by_class]) != 0])
    sizes = np.diff(np.r_[starts, len(by_class)])
    turn = np.arange(len(by_class)) - np.repeat(starts, sizes)  # place of the sample within its class
    # First everyone's first sample, then everyone's second, ...; within a turn the classes come in a hashed order.
    tie = hash_words(int(Purpose.SUBSET), 1, turn, labels[by_class])
    return np.sort(by_class[np.lexsort((tie, turn))][:count]).astype(np.int64)


class Subset:
    """Some samples of a source, as a source."""

    def __init__(self, source: Source, ids: NDArray[np.int64]) -> None:
        self._source, self._ids = source, ids
        self.classes = source.classes
        self.labels = source.labels[ids]
        self.sizes = source.sizes[ids]

    def __len__(self) -> int:
        """Return how many were chosen."""
        return len(self._ids)

    def read(self, index: int) -> Encoded:
        """Return one image as it is stored."""
        return self._source.read(int(self._ids[index]))

    def name(self, index: int) -> str:
        """Return the sample's name in the whole source."""
        return self._source.name(int(self._ids[index]))
