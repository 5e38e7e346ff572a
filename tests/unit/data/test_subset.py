"""Subsets: as even over the classes as they allow, nested, and the same every time."""

from collections import Counter

import numpy as np
import pytest

from src.data.sources.synthetic import SyntheticSource
from src.data.subset import Subset, choose_subset

EVEN = np.repeat(np.arange(6), 25)
SKEWED = np.repeat(np.arange(5), [1, 3, 40, 0, 56])
MIXED = np.random.default_rng(0).integers(0, 9, 120)
GOLDEN = [1, 3, 10, 14, 15, 23, 25]  # of 30 samples labelled 0 1 2 0 1 2 ...
LABELS = {"even": EVEN, "skewed": SKEWED, "mixed": MIXED}


def level_fill(sizes: list[int], count: int) -> list[int]:
    """Return how many every class gives at the least even level: one to each that has any left, until `count` are given."""
    given = [0] * len(sizes)
    while sum(given) < count:
        least = min(have for have, size in zip(given, sizes, strict=True) if have < size)
        label = next(label for label, size in enumerate(sizes) if given[label] == least and least < size)
        given[label] += 1
    return sorted(given)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_classes_are_balanced_to_within_one_as_far_as_they_reach(labels):
    sizes = np.bincount(labels)
    for count in range(len(labels) + 1):
        chosen = choose_subset(labels, count)
        assert len(chosen) == len(set(chosen.tolist())) == count
        given = np.bincount(labels[chosen], minlength=len(sizes))
        left = given[given < sizes]
        assert given.max() - (left.min() if len(left) else given.max()) <= 1
        if count % 10 == 0:
            assert sorted(given.tolist()) == level_fill(sizes.tolist(), count)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_a_smaller_subset_lies_in_every_larger_one(labels):
    smaller: set[int] = set()
    for count in range(len(labels) + 1):
        larger = set(choose_subset(labels, count).tolist())
        assert smaller <= larger
        smaller = larger


def test_the_whole_is_the_whole():
    assert choose_subset(MIXED, len(MIXED)).tolist() == list(range(len(MIXED)))


def test_ids_ascend_and_are_int64():
    chosen = choose_subset(MIXED, 50)
    assert chosen.dtype == np.int64
    assert (np.diff(chosen) > 0).all()


def test_a_subset_never_changes():
    assert choose_subset(np.arange(30) % 3, 7).tolist() == GOLDEN
    np.random.seed(1)
    assert choose_subset(np.arange(30) % 3, 7).tolist() == GOLDEN


def test_samples_are_drawn_and_not_the_first_of_their_class():
    chosen = choose_subset(np.repeat(np.arange(10), 100), 200) % 100
    assert chosen.max() > 90
    assert abs(chosen.mean() - 49.5) < 5 * 29 / np.sqrt(200)


def test_the_odd_samples_come_from_drawn_classes():
    labels = np.repeat(np.arange(100), 3)
    assert Counter(labels[choose_subset(labels, 50)].tolist()).most_common(1)[0][1] == 1
    assert labels[choose_subset(labels, 50)].mean() != pytest.approx(24.5), "the first classes"
    once, twice = (set(labels[choose_subset(labels, count)].tolist()) for count in (50, 300))
    assert len(once) == 50
    assert len(twice) == 100


def test_no_samples_at_all():
    assert choose_subset(np.zeros(0, np.int64), 0).tolist() == []


def test_a_subset_reads_its_samples_of_the_whole():
    whole = SyntheticSource(count=40, num_classes=4, stored_size=8, split="train")
    ids = choose_subset(whole.labels, 11)
    subset = Subset(whole, ids)
    assert len(subset) == 11
    assert subset.classes == whole.classes
    assert subset.labels.tolist() == whole.labels[ids].tolist()
    assert subset.sizes.tolist() == whole.sizes[ids].tolist()
    for index, sample in enumerate(ids.tolist()):
        assert subset.name(index) == whole.name(sample)
        assert np.array_equal(subset.read(index).data, whole.read(sample).data)
        assert [subset.read(index).width, subset.read(index).height] == subset.sizes[index].tolist()
