"""Draws: values that can never change, uniform, independent of each other and of anything but their arguments."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats

from src.draws import Purpose, hash_words, seed_of, uniform

GOLDEN_WORDS = [
    ((0,), 0xE220A8397B1DCDAF),  # SplitMix64's first number for seed 0, as published
    ((1,), 0x910A2DEC89025CC1),
    ((0, 0), 0xA706DD2F4D197E6F),
    ((1, 2, 3), 0x6AE515C1C0AC7E37),
    ((2**63 - 1,), 0x2A67D7552E039EA7),
    ((-1,), 0xE4D971771B652C20),
]


def slow_hash(*words: int) -> int:
    """Hash as the paper says, with Python's integers."""
    mask, state = 2**64 - 1, 0
    for word in words:
        z = (state + 0x9E3779B97F4A7C15 + word) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        state = z ^ (z >> 31)
    return state


@pytest.mark.parametrize(("words", "expected"), GOLDEN_WORDS)
def test_hashes_never_change(words, expected):
    assert int(hash_words(*words)) == expected == slow_hash(*words)


@pytest.mark.parametrize(
    ("key", "purpose", "n", "expected"),
    [
        (0, Purpose.FLIP, 0, 0.8640231001000226),
        (1, Purpose.CROP_AREA, 9, 0.5200381758922106),
        (2**64 - 1, Purpose.CROP_X, 3, 0.09833221940226056),
    ],
)
def test_uniforms_never_change(key, purpose, n, expected):
    assert float(uniform(key, purpose, n)) == expected == (slow_hash(key, int(purpose), n) >> 11) / 2**53


@pytest.mark.parametrize("words", [(), (0,), (-3,), (2**64 - 1, 5), (7, 7, 2**40, 0), (2**63 - 1, -1, 12)])
def test_a_seed_is_half_of_the_hash(words):
    assert seed_of(*words) == int(hash_words(*words)) >> 1


def test_seeds_never_change():
    assert (seed_of(0), seed_of(1, 2, 3)) == (8147104208329303767, 3851293329796251419)


def test_purposes_keep_their_numbers():
    numbers = {purpose.name: purpose.value for purpose in Purpose}
    kept = {
        "ORDER": 1,
        "CROP_AREA": 2,
        "CROP_RATIO": 3,
        "CROP_X": 4,
        "CROP_Y": 5,
        "FLIP": 6,
        "SLOT": 7,
        "SUBSET": 8,
        "SYNTHETIC": 9,
        "RECALIBRATION": 10,
    }
    assert kept.items() <= numbers.items()
    assert len(set(numbers.values())) == len(Purpose.__members__), "two names share a number"


@pytest.mark.parametrize("seed", range(3))
def test_arrays_are_hashed_as_their_elements_are(seed):
    words = np.random.default_rng(seed).integers(0, 2**64, (3, 50), dtype=np.uint64)
    expected = [slow_hash(*column) for column in words.T.tolist()]
    before = words.copy()
    assert hash_words(*words).tolist() == expected
    assert (words == before).all()


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, np.uint16, np.uint64])
def test_a_word_is_its_value_whatever_its_type(kind):
    words = np.array([0, 1, 77, 127], kind)
    assert hash_words(3, words).tolist() == [slow_hash(3, word) for word in (0, 1, 77, 127)]


def test_a_negative_word_is_its_twos_complement():
    assert int(hash_words(np.int32(-5))) == slow_hash(2**64 - 5)


def test_shapes_are_broadcast():
    assert hash_words(1).shape == ()
    assert hash_words(np.arange(4)).shape == (4,)
    assert hash_words(np.arange(4)[:, None], 9, np.arange(3)).shape == (4, 3)
    table = uniform(np.arange(4, dtype=np.uint64)[:, None], Purpose.FLIP, np.arange(3)[None, :])
    assert table.shape == (4, 3)
    assert table.dtype == np.float64
    assert table.tolist() == [[float(uniform(key, Purpose.FLIP, n)) for n in range(3)] for key in range(4)]


def test_order_and_number_of_words_matter():
    hashes = [int(hash_words(*words)) for words in ((1, 2), (2, 1), (1, 2, 0), (0, 1, 2), (3,), (1,), (2,))]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize("purpose", list(Purpose))
def test_draws_are_uniform_for_neighbouring_keys(purpose):
    draws = uniform(np.arange(50_000), purpose)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert stats.kstest(draws, "uniform").pvalue > 1e-3


def test_successive_draws_of_one_key_are_uniform_and_unrelated():
    draws = uniform(hash_words(5), Purpose.CROP_AREA, np.arange(50_000))
    assert stats.kstest(draws, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 5 / np.sqrt(len(draws))


@pytest.mark.parametrize(("first", "second"), list(combinations(Purpose, 2)))
def test_purposes_are_independent(first, second):
    keys = np.arange(20_000)
    counts, _, _ = np.histogram2d(uniform(keys, first), uniform(keys, second), bins=8, range=[(0, 1), (0, 1)])
    assert stats.chisquare(counts.ravel()).pvalue > 1e-5


def test_every_bit_of_a_word_changes_half_of_the_hash():
    words = np.random.default_rng(0).integers(0, 2**64, 2_000, dtype=np.uint64)
    for bit in range(64):
        changed = np.bitwise_count(hash_words(words) ^ hash_words(words ^ np.uint64(1 << bit))).mean()
        assert abs(changed - 32) < 1, f"bit {bit} changes {changed} of 64"


def test_seeds_are_what_torch_takes():
    seeds = [seed_of(word, 3) for word in range(2_000)]
    assert all(type(seed) is int and 0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62, "the upper half is never used"
    assert len(set(seeds)) == len(seeds)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(max(seeds))
