"""Randomness without state: every draw is a hash of what it is for.

SplitMix64's finaliser (Steele, Lea and Flood 2014; constants of Stafford's variant 13) is applied to one word after the other.
The numbers depend on nothing but their arguments: not on a library's version, a generator's state, a worker or a rank.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MASK = 2**64 - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Purpose(IntEnum):
    """What a draw is for. Numbers are never reused: a run's randomness would change."""

    ORDER = 1
    CROP_AREA = 2
    CROP_RATIO = 3
    CROP_X = 4
    CROP_Y = 5
    FLIP = 6
    SLOT = 7
    SUBSET = 8
    SYNTHETIC = 9
    RECALIBRATION = 10
    REPLACEMENT = 11
    OPERATION = 12
    OPERATION_APPLIED = 13
    OPERATION_MAGNITUDE = 14
    OPERATION_SIGN = 15
    JITTER_FACTOR = 16
    JITTER_ORDER = 17
    ERASE = 18
    ERASE_AREA = 19
    ERASE_RATIO = 20
    ERASE_X = 21
    ERASE_Y = 22
    ERASE_NOISE = 23
    MIX = 24
    MIX_KIND = 25
    MIX_GAMMA = 26
    MIX_ORDER = 27
    MIX_BOX = 28


def hash_words(*words: ArrayLike) -> NDArray[np.uint64]:
    """Hash words (any integers, broadcast against each other) to uint64 of the broadcast shape."""
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            state = _finalise(state + _GOLDEN + np.asarray(word).astype(np.uint64))
    return np.asarray(state)


def uniform(keys: ArrayLike, purpose: Purpose, n: ArrayLike = 0) -> NDArray[np.float64]:
    """Draw the n-th number in [0, 1) for each key, with 53 random bits."""
    return (hash_words(keys, int(purpose), n) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def seed_of(*words: int) -> int:
    """Hash words to one non-negative int below 2**63, as torch.manual_seed takes it."""
    state = 0
    for word in words:  # hash_words on plain ints, which for a single number are thirty times as fast
        z = (state + int(_GOLDEN) + word) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        state = z ^ (z >> 31)
    return state >> 1


def _finalise(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
