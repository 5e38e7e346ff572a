"""The split made on request: stratified, the same everywhere, and steady when images come and go."""

import hashlib
import random

import numpy as np
import pytest

from src.imagenet.sets.split import chosen_for_val, val_count

NAMES = [f"{number}.jpg" for number in range(200)]


def val_of(names: list[str], *, folder: str = "cat", fraction: float = 0.1, seed: int = 0) -> set[str]:
    return {name for name, val in zip(names, chosen_for_val(folder, names, fraction=fraction, seed=seed), strict=True) if val}


@pytest.mark.parametrize(
    ("images", "fraction", "count"),
    [(0, 0.1, 0), (1, 0.5, 0), (2, 0.01, 1), (2, 0.99, 1), (3, 0.9, 2), (10, 0.1, 1), (25, 0.1, 3), (24, 0.1, 2), (1300, 0.1, 130)],
)
def test_every_class_gives_its_share_rounded_and_is_in_both_splits(images: int, fraction: float, count: int) -> None:
    assert val_count(images, fraction) == count
    assert len(val_of(NAMES[:images] if images <= 200 else [str(n) for n in range(images)], fraction=fraction)) == count


def test_neither_the_order_on_disk_nor_other_classes_matter() -> None:
    shuffled = random.Random(0).sample(NAMES, len(NAMES))
    assert val_of(shuffled) == val_of(NAMES)


def test_seed_and_class_choose_others() -> None:
    assert val_of(NAMES, seed=1) != val_of(NAMES)
    assert val_of(NAMES, folder="dog") != val_of(NAMES)


def test_it_is_the_ranking_by_hash_that_is_documented() -> None:
    def rank(name: str) -> bytes:
        return hashlib.blake2b(f"7\0cat\0{name}".encode(), digest_size=8).digest()

    assert val_of(NAMES, fraction=0.25, seed=7) == set(sorted(NAMES, key=rank)[:50])


def test_an_image_more_moves_at_most_one_other() -> None:
    names, rng = NAMES[:40], random.Random(1)
    before = val_of(names)
    for number in range(300):
        names = [*names, f"new-{number}-{rng.random()}.jpg"]
        after = val_of(names)
        assert len((before ^ after) - {names[-1]}) <= 1
        before = after


def test_a_larger_share_keeps_what_a_smaller_one_chose() -> None:
    assert val_of(NAMES, fraction=0.1) < val_of(NAMES, fraction=0.2)


def test_names_that_are_no_utf8_are_ranked_too() -> None:
    assert np.count_nonzero(chosen_for_val("cat", ["a\udcff.jpg", "b.jpg"], fraction=0.5, seed=0)) == 1
