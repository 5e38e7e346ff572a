"""Which operations an image gets, and how strongly: pure functions of its key, drawn on the host.

- rand_augment: torchvision's RandAugment (Cubuk et al. 2019, arXiv:1909.13719): 14 operations, one of 31 magnitudes for all.
- trivial_augment_wide: torchvision's TrivialAugmentWide (Mueller and Hutter 2021, arXiv:2103.10158): one of these operations, wider
  ranges, any of 31 magnitudes.
- rand_augment_timm: timm's rand-m<magnitude>-mstd<magnitude_std>-inc1: 15 operations, each applied with probability 1/2, magnitudes
  0 to 10 from a normal distribution.

Both of torchvision's interpolate bilinearly and uncover black, as its training reference does. timm's chooses between bilinear and
bicubic by chance; here it is always bilinear. It uncovers the mean colour, as timm's does.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from src.augment.operations import BLENDED, Operation
from src.draws import Purpose, uniform

BINS = 31
TIMM_MAGNITUDES = 10.0  # from 0 to this

Values = NDArray[np.float64]


class Layers(NamedTuple):
    """What is done to each image of a micro-batch, layer after layer.

    Attributes:
        operations: int64 (L, N), of Operation.
        values: float64 (L, N), what the operation takes.
        strengths: float64 (N,), in [0, 1]: the mean over the image's layers of the magnitude as a share of its range. An operation
            without a magnitude counts 1, none at all 0.
    """

    operations: NDArray[np.int64]
    values: Values
    strengths: Values


class Wide(NamedTuple):
    """Greatest magnitudes of a law in torchvision's manner; translations as pixels of an image (width or height)."""

    shear: float
    translate: Callable[[int], float]
    rotate: float
    blend: float
    posterize: int  # bits that are lost


RAND_AUGMENT = Wide(shear=0.3, translate=lambda size: 150.0 / 331.0 * size, rotate=30.0, blend=0.9, posterize=4)
TRIVIAL_AUGMENT_WIDE = Wide(shear=0.99, translate=lambda size: 32.0, rotate=135.0, blend=0.99, posterize=6)

# The order belongs to the draws: the operation is the place that is drawn.
_TORCHVISION = tuple(Operation(number) for number in range(Operation.EQUALIZE + 1))
_SIGNED = np.array([Operation.SHEAR_X <= operation <= Operation.SHARPNESS for operation in _TORCHVISION])
_TIMM = (
    *(Operation.AUTO_CONTRAST, Operation.EQUALIZE, Operation.INVERT, Operation.ROTATE, Operation.POSTERIZE, Operation.SOLARIZE),
    *(Operation.SOLARIZE_ADD, Operation.COLOR, Operation.CONTRAST, Operation.BRIGHTNESS, Operation.SHARPNESS),
    *(Operation.SHEAR_X, Operation.SHEAR_Y, Operation.TRANSLATE_X, Operation.TRANSLATE_Y),
)
_ALL_OR_NOTHING = (Operation.AUTO_CONTRAST, Operation.EQUALIZE, Operation.INVERT)


def draw_rand_augment(keys: NDArray[np.uint64], *, num_operations: int, magnitude: int, height: int, width: int) -> Layers:
    """Draw `num_operations` operations of one magnitude (a bin of 31) for each key."""
    bins = np.full((num_operations, len(keys)), magnitude)
    return _draw_torchvision(keys, bins, RAND_AUGMENT, height, width)


def draw_trivial_augment_wide(keys: NDArray[np.uint64], *, height: int, width: int) -> Layers:
    """Draw one operation of any magnitude for each key."""
    bins = _choices(keys, Purpose.OPERATION_MAGNITUDE, 1, BINS)
    return _draw_torchvision(keys, bins, TRIVIAL_AUGMENT_WIDE, height, width)


def _draw_torchvision(keys: NDArray[np.uint64], bins: NDArray[np.int64], law: Wide, height: int, width: int) -> Layers:
    chosen = _choices(keys, Purpose.OPERATION, len(bins), len(_TORCHVISION))
    negative = (_draws(keys, Purpose.OPERATION_SIGN, len(bins)) < 0.5) & _SIGNED[chosen]
    values = value_table(law, height, width)[negative.astype(int), chosen, bins]
    operations = np.array(_TORCHVISION)[chosen]
    return Layers(operations, values, _mean_strength(operations, bins / (BINS - 1)))


@lru_cache(maxsize=64)
def value_table(law: Wide, height: int, width: int) -> Values:
    """Return an operation's value as float64 (2, 14, 31): with its sign and the opposite one, by operation and bin."""

    def ramp(first: float, last: float) -> Values:
        return torch.linspace(first, last, BINS).numpy().astype(np.float64)  # float32, as the reference's magnitudes are

    lost = (torch.arange(BINS) / ((BINS - 1) / law.posterize)).numpy()
    magnitudes = np.zeros((len(_TORCHVISION), BINS))
    magnitudes[[Operation.SHEAR_X, Operation.SHEAR_Y]] = ramp(0.0, law.shear)
    magnitudes[Operation.TRANSLATE_X] = np.trunc(ramp(0.0, law.translate(width)))
    magnitudes[Operation.TRANSLATE_Y] = np.trunc(ramp(0.0, law.translate(height)))
    magnitudes[Operation.ROTATE] = ramp(0.0, law.rotate)
    magnitudes[list(BLENDED)] = ramp(0.0, law.blend)
    magnitudes[Operation.POSTERIZE] = np.round(8 - lost)
    # a pixel is compared with 255 * magnitude in float32: with the next whole number
    magnitudes[Operation.SOLARIZE] = np.ceil((255 * ramp(1.0, 0.0)).astype(np.float32))
    table = np.stack([magnitudes, np.where(_SIGNED[:, None], -magnitudes, magnitudes)])
    table[:, list(BLENDED)] += 1.0
    return table


def draw_rand_augment_timm(
    keys: NDArray[np.uint64], *, num_operations: int, magnitude: float, deviation: float, height: int, width: int
) -> Layers:
    """Draw `num_operations` operations for each key, each applied with probability 1/2."""
    chosen = _choices(keys, Purpose.OPERATION, num_operations, len(_TIMM))
    applied = _draws(keys, Purpose.OPERATION_APPLIED, num_operations) < 0.5
    radius = np.sqrt(-2 * np.log1p(-_draws(keys, Purpose.OPERATION_MAGNITUDE, num_operations)))  # Box and Muller 1958
    angle = 2 * np.pi * _draws(keys, Purpose.OPERATION_MAGNITUDE, num_operations, first=num_operations)
    levels = np.clip(magnitude + deviation * radius * np.cos(angle), 0.0, TIMM_MAGNITUDES) / TIMM_MAGNITUDES
    sign = np.where(_draws(keys, Purpose.OPERATION_SIGN, num_operations) < 0.5, -1.0, 1.0)
    operations = np.where(applied, np.array(_TIMM)[chosen], Operation.IDENTITY)
    values = np.zeros_like(levels)
    for operation in _TIMM:
        here = operations == operation
        values[here] = timm_values(operation, levels[here], sign[here], height, width)
    return Layers(operations, values, _mean_strength(operations, levels))


def timm_values(operation: Operation, levels: Values, sign: Values, height: int, width: int) -> Values:
    """Turn magnitudes as shares of their range into an operation's values. The direction of the sign is timm's.

    Args:
        operation: one of timm's.
        levels: (n,), in [0, 1].
        sign: (n,), 1 or -1.
        height: pixels.
        width: pixels.
    """
    match operation:
        case Operation.SHEAR_X | Operation.SHEAR_Y:
            return sign * levels * 0.3
        case Operation.TRANSLATE_X:
            return -sign * levels * 0.45 * width
        case Operation.TRANSLATE_Y:
            return -sign * levels * 0.45 * height
        case Operation.ROTATE:
            return sign * levels * 30.0
        case Operation.BRIGHTNESS | Operation.COLOR | Operation.CONTRAST | Operation.SHARPNESS:
            return np.maximum(0.1, 1.0 + sign * levels * 0.9)
        case Operation.POSTERIZE:
            return 4 - np.trunc(levels * 4)
        case Operation.SOLARIZE:
            return 256 - np.trunc(levels * 256)
        case Operation.SOLARIZE_ADD:
            return np.trunc(levels * 110)
        case _:
            return np.zeros_like(levels)


def draw_jitter(keys: NDArray[np.uint64], *, brightness: float, contrast: float, saturation: float, hue: float) -> Layers:
    """Draw colour jitter by torchvision's law: a factor for each, in a random order. What is 0 is left out."""
    ranges = {
        Operation.BRIGHTNESS: (max(0.0, 1 - brightness), 1 + brightness),
        Operation.CONTRAST: (max(0.0, 1 - contrast), 1 + contrast),
        Operation.COLOR: (max(0.0, 1 - saturation), 1 + saturation),
        Operation.HUE: (-hue, hue),
    }
    draws = _draws(keys, Purpose.JITTER_FACTOR, len(ranges))
    low, high = np.array(list(ranges.values())).T[:, :, None]
    values = low + (high - low) * draws
    operations = np.where(high > low, np.array(list(ranges))[:, None], Operation.IDENTITY)
    order = np.argsort(np.where(high > low, _draws(keys, Purpose.JITTER_ORDER, len(ranges)), 1.0), axis=0, kind="stable")
    operations, values = (np.take_along_axis(np.broadcast_to(array, order.shape), order, axis=0) for array in (operations, values))
    return Layers(operations, values, np.zeros(len(keys)))


def _choices(keys: NDArray[np.uint64], purpose: Purpose, layers: int, among: int) -> NDArray[np.int64]:
    return (_draws(keys, purpose, layers) * among).astype(np.int64)


def _draws(keys: NDArray[np.uint64], purpose: Purpose, count: int, *, first: int = 0) -> Values:
    """Draw (count, N) numbers in [0, 1)."""
    return uniform(keys, purpose, np.arange(first, first + count)[:, None])


def _mean_strength(operations: NDArray[np.int64], levels: Values) -> Values:
    levels = np.where(np.isin(operations, _ALL_OR_NOTHING), 1.0, levels)
    strengths: Values = np.where(operations == Operation.IDENTITY, 0.0, levels).mean(axis=0)
    return strengths
