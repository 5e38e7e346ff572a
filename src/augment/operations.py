"""What can be done to pixels, each image with a parameter of its own. Pure functions of uint8 images.

Every result is that of torchvision's functional operation on the image alone, bit for bit on the CPU: the same arithmetic in the
same order, with a tensor of parameters where torchvision has one number, so that a group of images is a few launches. Nothing
depends on the other images: sums are of integers, and no matrix is multiplied whose rounding could depend on the group's size.

Two of torchvision's results would depend on more than the image. The mean grey of contrast is a float32 sum, inexact above 2**24
(288 px); here it is exact, which is the same below. The blur of sharpness is a convolution, on a
GPU in TF32; here it is an integer sum.
"""

from enum import IntEnum
from functools import lru_cache
from math import atan, cos, degrees, radians, sin, tan
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.transforms.v2 import functional

PARAMETERS = 6  # float32 numbers that an operation gets for each image
Fill = tuple[int, int, int] | None
_MAX = 255


class Operation(IntEnum):
    """What is done. Its value, in parentheses, is one number an image."""

    IDENTITY = 0
    SHEAR_X = 1  # (tangent)
    SHEAR_Y = 2  # (tangent)
    TRANSLATE_X = 3  # (pixels to the right)
    TRANSLATE_Y = 4  # (pixels down)
    ROTATE = 5  # (degrees, counter-clockwise)
    BRIGHTNESS = 6  # (factor, at least 0; so are the next three)
    COLOR = 7
    CONTRAST = 8
    SHARPNESS = 9
    POSTERIZE = 10  # (bits that are kept, 0 to 8)
    SOLARIZE = 11  # (the least value that is inverted, 0 to 256)
    AUTO_CONTRAST = 12
    EQUALIZE = 13
    INVERT = 14
    SOLARIZE_ADD = 15  # (what is added to values below 128)
    HUE = 16  # (share of the circle, -0.5 to 0.5)


GEOMETRIC = (Operation.SHEAR_X, Operation.SHEAR_Y, Operation.TRANSLATE_X, Operation.TRANSLATE_Y, Operation.ROTATE)
BLENDED = (Operation.BRIGHTNESS, Operation.COLOR, Operation.CONTRAST, Operation.SHARPNESS)


def parameters(operation: Operation, values: NDArray[np.float64], height: int, width: int) -> NDArray[np.float32]:
    """Turn an operation's values (n,) into the numbers (n, 6) that `apply` needs of each image."""
    result = np.zeros((len(values), PARAMETERS), np.float32)
    if operation in GEOMETRIC:
        for row, value in zip(result, values.tolist(), strict=True):
            row[:] = _affine(operation, value, height, width)
    elif operation in BLENDED:
        result[:, 0], result[:, 1] = values, 1.0 - values
    elif operation == Operation.POSTERIZE:
        result[:, 0] = _MAX + 1 - 2.0 ** (8 - values)  # the mask of the bits that are kept
    else:
        result[:, 0] = values
    return result


def apply(operation: Operation, images: Tensor, numbers: Tensor, values: NDArray[np.float64], *, fill: Fill) -> Tensor:
    """Apply one operation.

    Args:
        operation: which.
        images: uint8 (n, 3, H, W), contiguous. Not modified.
        numbers: float32 (n, 6), what `parameters` made of the values, on the images' device.
        values: float64 (n,), on the host.
        fill: the colour of what geometric operations uncover; None for black.

    Returns:
        uint8 (n, 3, H, W).
    """
    first = numbers[:, 0].view(-1, 1, 1, 1)
    match operation:
        case Operation.IDENTITY:
            return images
        case Operation.TRANSLATE_X | Operation.TRANSLATE_Y if fill is None and not np.any(values % 1):
            return _shift(images, values.astype(int).tolist(), dim=3 if operation == Operation.TRANSLATE_X else 2)
        case Operation.SHEAR_X | Operation.SHEAR_Y | Operation.TRANSLATE_X | Operation.TRANSLATE_Y | Operation.ROTATE:
            return _transform(images, numbers, fill)
        case Operation.BRIGHTNESS:
            return _pixels(images.float().mul_(first))
        case Operation.COLOR:
            return _blend(images, _grey(images).float(), numbers)
        case Operation.CONTRAST:
            return _blend(images, _mean_grey(images), numbers)
        case Operation.SHARPNESS:
            return _sharpness(images, numbers[:, 1].view(-1, 1, 1, 1))
        case Operation.POSTERIZE:
            return images & first.to(torch.uint8)
        case Operation.SOLARIZE:
            least = first.to(torch.uint8) if values.max() <= _MAX else first
            return (images >= least).view(torch.uint8).neg_().bitwise_xor_(images)  # 255 - x is x ^ 255, and -1 is 255
        case Operation.AUTO_CONTRAST:
            return _auto_contrast(images)
        case Operation.EQUALIZE:
            return torch.as_tensor(functional.equalize(images))
        case Operation.INVERT:
            return images.bitwise_not()
        case Operation.SOLARIZE_ADD:
            return torch.where(images < 128, _pixels(images.float().add_(first)), images)
        case Operation.HUE:
            return _hue(images, numbers[:, 0].view(-1, 1, 1))
        case _:
            assert_never(operation)


def _pixels(numbers: Tensor) -> Tensor:
    """Cut off what is out of range, and the fraction, as torchvision does."""
    return numbers.clamp_(0, _MAX).to(torch.uint8)


def _blend(images: Tensor, other: Tensor, numbers: Tensor) -> Tensor:
    """Return factor * images + (1 - factor) * other."""
    own, rest = (numbers[:, place].view(-1, 1, 1, 1) for place in (0, 1))
    return _pixels(images.float().mul_(own).addcmul_(other, rest))  # fused as in add_(other, alpha=...): the same rounding


def _mean_grey(images: Tensor) -> Tensor:
    rows = _grey(images).to(torch.float32).sum(3)  # whole numbers far below 2**24: exact in any order
    return (rows.to(torch.float64).sum(2, keepdim=True) / images[0, 0].numel()).to(torch.float32)[..., None]


def _grey(images: Tensor) -> Tensor:
    grey: Tensor = functional.rgb_to_grayscale(images)
    return grey


def _sharpness(images: Tensor, rest: Tensor) -> Tensor:
    """Blend with a blur of weights 1/13, in the middle 5/13. Pixels at the border stay."""
    height, width = images.shape[-2:]
    if height <= 2 or width <= 2:
        return images
    whole = images.to(torch.int16)
    rows = (whole[..., :-2, :] + whole[..., 1:-1, :]).add_(whole[..., 2:, :])
    inner = whole[..., 1:-1, 1:-1]
    sums = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:]).add_(inner, alpha=4)  # below 2**15
    blurred = sums.to(torch.float32).mul_(1 / 13).round_()  # k / 13 is never half-way, so its rounding is exact
    result = images.to(torch.float32)
    view = result[..., 1:-1, 1:-1]
    view.addcmul_(blurred.sub_(view), rest)
    return _pixels(result)


def _auto_contrast(images: Tensor) -> Tensor:
    """Stretch each channel to the whole range; a flat one stays."""
    pixels = images.to(torch.float32)
    low, high = (extreme(dim=(-2, -1), keepdim=True) for extreme in (pixels.amin, pixels.amax))
    flat = high == low  # torchvision's own assigns by this mask, for which a GPU waits
    scale = high.sub_(low).mul_(1 / _MAX).masked_fill_(flat, 1.0)
    return _pixels(pixels.sub_(low.masked_fill_(flat, 0.0)).div_(scale))


def _shift(images: Tensor, pixels: list[int], dim: int) -> Tensor:
    """Move each image by whole pixels along a dimension: what the interpolation gives there, without one."""
    result, size = torch.zeros_like(images), images.shape[dim]
    for image, moved, by in zip(images, result, pixels, strict=True):
        length = size - abs(by)
        if length > 0:
            moved.narrow(dim - 1, max(by, 0), length).copy_(image.narrow(dim - 1, max(-by, 0), length))
    return result


def _transform(images: Tensor, numbers: Tensor, fill: Fill) -> Tensor:
    """Sample each image bilinearly at an affine function of the place."""
    count, _, height, width = images.shape
    x, y = (torch.linspace((1 - size) / 2, (size - 1) / 2, size, device=images.device) for size in (width, height))
    by_x, by_y, shift = numbers.view(count, 3, 1, 1, 2).expand(-1, -1, -1, width, -1).unbind(1)  # each (n, 1, W, 2)
    row = (by_x * x[:, None]).expand(-1, height, -1, -1)
    grid = torch.addcmul(row, y[:, None, None], by_y.contiguous()).add_(shift.contiguous())
    pixels = images.to(torch.float32)
    if fill is None:
        return _sampled(pixels, grid).round_().to(torch.uint8)
    inside = _sampled(pixels.new_ones(count, 1, height, width), grid)
    colour = torch.stack([pixels.new_full((1, 1), float(value)) for value in fill])
    return _sampled(pixels, grid).sub_(colour).mul_(inside).add_(colour).round_().to(torch.uint8)


def _sampled(pixels: Tensor, grid: Tensor) -> Tensor:
    return grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


@lru_cache(maxsize=4096)
def _affine(operation: Operation, value: float, height: int, width: int) -> tuple[float, ...]:
    """Return where to sample, in grid_sample's units, as (x by x, y by x, x by y, y by y, x shift, y shift).

    Shears leave the upper left corner where it is, rotations the middle. The order of the arithmetic is torchvision's.
    """
    across, down = width / 2, height / 2
    match operation:
        case Operation.SHEAR_X:
            slope = tan(radians(degrees(atan(value))))
            matrix = [1.0, slope, slope * down, 0.0, 1.0, 0.0]
        case Operation.SHEAR_Y:
            angle = radians(degrees(atan(value)))
            slope, own = sin(-angle) / cos(angle), cos(-angle) / cos(angle)
            matrix = [1.0, 0.0, 0.0, -slope, own, -down - slope * across + own * down]
        case Operation.TRANSLATE_X:
            matrix = [1.0, 0.0, -value, 0.0, 1.0, 0.0]
        case Operation.TRANSLATE_Y:
            matrix = [1.0, 0.0, 0.0, 0.0, 1.0, -value]
        case _:
            angle = radians(-(value % 360))
            matrix = [cos(angle), sin(angle), 0.0, -sin(angle), cos(angle), 0.0]
    halves = np.float32(across), np.float32(down)
    return tuple(float(np.float32(matrix[3 * row + column]) / halves[row]) for column in range(3) for row in range(2))


def _hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by a share of the circle, through HSV in float32 (Smith 1978, Color gamut transform pairs)."""
    pixels = images.to(torch.float32).mul_(1 / _MAX)
    red, green, _ = pixels.unbind(1)
    low, value = torch.aminmax(pixels, dim=1)
    spread = value - low
    grey = spread == 0
    saturation = spread / value.masked_fill(grey, 1.0)
    r, g, b = ((value[:, None] - pixels) / spread.masked_fill(grey, 1.0)[:, None]).unbind(1)
    sixths = torch.where(value == red, b - g, torch.where(value == green, r + 2.0 - b, g + 4.0 - r))
    hue = sixths.mul_(1 / 6).add_(1.0).fmod_(1.0).add_(turn).remainder_(1.0).mul_(6)
    sector = hue.floor()
    part = saturation * hue.sub_(sector)
    unsaturated = 1.0 - saturation
    falling = ((1.0 - part) * value).clamp_(0, 1)[:, None]
    rising = ((part + unsaturated) * value).clamp_(0, 1)[:, None]
    lowest = (unsaturated * value).clamp_(0, 1)[:, None]
    # red falls in sector 1, is lowest in 2 and 3, rises in 4 and is highest in 5 and 0; green is two sectors behind, blue four
    channels = torch.arange(0, 6, 2, device=images.device).view(1, 3, 1, 1)
    at = (sector[:, None] - channels).remainder_(6)
    middle = torch.where(at == 1, falling, torch.where(at == 4, rising, lowest))
    return torch.where((at == 0) | (at == 5), value[:, None], middle).mul_(_MAX + 1 - 1e-3).to(torch.uint8)
