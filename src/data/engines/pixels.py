"""The reference pixels: Pillow decodes, torch's antialiased uint8 resize cuts the plan's box. Every engine is measured against it.

Also what other engines fall back on for the odd image that their own decoder cannot take: so whether an image is bad does not
depend on the engine.
"""

import io
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from src.batch import BatchPlan, BoxResize, DataError, Encoded, Geometry, Source, StaleIndex
from src.data.headers import FORMATS

Box = tuple[int, int, int, int]  # x, y, width, height
DecodeBox = Callable[[Encoded, Box | None], NDArray[np.uint8]]
_UNDECODABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class WrongSize(Exception):  # noqa: N818 (it becomes a StaleIndex, which names the sample)
    """An image whose size is not the one in the index. Its arguments are the width and height that were found."""


def decode_box(encoded: Encoded, box: Box | None) -> NDArray[np.uint8]:
    """Decode by content with Pillow: never rotated, never truncated.

    Args:
        encoded: one stored image.
        box: the part that is wanted; None for all of it.

    Returns:
        uint8 (height, width, 3), RGB. A view of the source's memory where nothing had to be decoded.

    Raises:
        WrongSize: if the image is not as large as `encoded` says.
        OSError, ValueError, SyntaxError, Image.DecompressionBombError: if it cannot be decoded.
    """
    if encoded.kind == "raw":
        return raw_box(encoded, box)
    assert not isinstance(encoded.data, np.ndarray)
    with Image.open(io.BytesIO(encoded.data), formats=FORMATS) as image:
        check_size(encoded, *image.size)
        image.load()
        # Cut first: Pillow copies and converts slowly, and holds the interpreter lock meanwhile.
        part = image if box is None else image.crop((box[0], box[1], box[0] + box[2], box[1] + box[3]))
        return np.asarray(part if part.mode == "RGB" else part.convert("RGB"))


def raw_box(encoded: Encoded, box: Box | None) -> NDArray[np.uint8]:
    """Return the part of a raw image, without a copy."""
    assert isinstance(encoded.data, np.ndarray)
    return encoded.data if box is None else encoded.data[box[1] : box[1] + box[3], box[0] : box[0] + box[2]]


def check_size(encoded: Encoded, width: int, height: int) -> None:
    """Raise WrongSize where the image is not as large as the index says."""
    if (width, height) != (encoded.width, encoded.height):
        raise WrongSize(width, height)


def write_row(
    decode: DecodeBox,
    source: Source,
    plan: BatchPlan,
    row: int,
    pixels: Tensor,
    place: int,
    geometry: Geometry,
    encoded: Encoded | None = None,
) -> None:
    """Make one image of a plan, alone.

    Args:
        decode: what decodes.
        source: where the image is stored.
        plan: what is wanted.
        row: which of the plan's images.
        pixels: uint8 (N, S, S, 3), written to.
        place: the row of `pixels` to write.
        geometry: training's or evaluation's.
        encoded: the stored image, where it has been read already.

    Raises:
        DataError: naming the sample, if it cannot be read or decoded.
        StaleIndex: if it is not of the size that the index says.
    """
    if encoded is None:
        encoded = read_row(source, plan, row)
    image = decode_row(decode, source, plan, row, encoded, geometry)
    finish_row(image, bool(plan.flips[row]), pixels[place], geometry)


def read_row(source: Source, plan: BatchPlan, row: int) -> Encoded:
    """Read one image of a plan.

    Raises:
        DataError: naming the sample, if it cannot be read or is known to be bad.
    """
    index = int(plan.ids[row])
    try:
        encoded = source.read(index)
    except DataError:
        raise  # names the sample already
    except Exception as error:
        error.add_note(f"while reading {source.name(index)}")
        raise
    if encoded.width == 0:
        raise DataError(f"{source.name(index)} was found to be bad when the index was made. Replace or remove the file.")
    return encoded


def box_of(plan: BatchPlan, row: int, geometry: Geometry) -> Box | None:
    """Return the part of the stored image that a geometry needs; None for all of it."""
    if not isinstance(geometry, BoxResize):
        return None
    x, y, width, height = plan.crops[row].tolist()
    return x, y, width, height


def decode_row(
    decode: DecodeBox, source: Source, plan: BatchPlan, row: int, encoded: Encoded, geometry: Geometry
) -> NDArray[np.uint8]:
    """Decode one image of a plan, or its box. See write_row for what it raises."""
    try:
        return decode(encoded, box_of(plan, row, geometry))
    except WrongSize as error:
        width, height = error.args
        raise StaleIndex(
            f"{source.name(int(plan.ids[row]))} is {width} x {height} px, but {encoded.width} x {encoded.height} px in the index: "
            "the file changed. Delete the index (.*.index.npz beside the data, or what is in data.cache_dir) and start again."
        ) from None
    except _UNDECODABLE as error:
        name = source.name(int(plan.ids[row]))
        raise DataError(f"{name} cannot be decoded: {error}. Replace or remove the file.") from error
    except Exception as error:
        error.add_note(f"while decoding {source.name(int(plan.ids[row]))}")
        raise


def finish_row(image: NDArray[np.uint8], flip: bool, place: Tensor, geometry: Geometry) -> None:
    """Resize a decoded box, or cut a whole image's centre, and write it to its place, uint8 (S, S, 3)."""
    if isinstance(geometry, BoxResize):
        made = resize(image, (geometry.image_size, geometry.image_size), geometry.interpolation)
    else:
        made = resize_centre_crop(image, geometry.resize_size, geometry.image_size, geometry.interpolation)
    # numpy copies a mirrored row of three-byte pixels fourteen times as slowly as torch does.
    place.copy_(made.flip(1) if flip else made)


def resize(image: NDArray[np.uint8], size: tuple[int, int], interpolation: str) -> Tensor:
    """Resize antialiased, on uint8.

    Args:
        image: uint8 (H, W, 3).
        size: height and width.
        interpolation: "bilinear" or "bicubic".

    Returns:
        uint8 (*size, 3).
    """
    if not (image.flags.c_contiguous and image.flags.writeable):
        image = np.array(image)
    tensor = torch.from_numpy(image)
    height, width = image.shape[:2]
    if (height, width) == size:
        return tensor
    # A batch of one has to be told that it is channels_last; else torch repacks it (pytorch #68430): same pixels, twice the time.
    tensor = tensor.as_strided((1, 3, height, width), (height * width * 3, 1, width * 3, 3))
    resized = functional.interpolate(tensor, size, mode=interpolation, antialias=True)
    return resized[0].permute(1, 2, 0)


def resize_centre_crop(image: NDArray[np.uint8], resize_size: int, image_size: int, interpolation: str) -> Tensor:
    """Do torchvision's Resize(resize_size) and CenterCrop(image_size), with its rounding.

    Args:
        image: uint8 (H, W, 3).
        resize_size: of the shorter side.
        image_size: of the square, at most resize_size.
        interpolation: "bilinear" or "bicubic".

    Returns:
        uint8 (image_size, image_size, 3).
    """
    height, width = image.shape[:2]
    return centre(resize(image, evaluation_size(height, width, resize_size), interpolation), image_size)


def evaluation_size(height: int, width: int, resize_size: int) -> tuple[int, int]:
    """Return the height and width to which torchvision's Resize(resize_size) resizes."""
    short, long = min(height, width), max(height, width)
    longer = int(resize_size * long / short)
    return (longer, resize_size) if height > width else (resize_size, longer)


def centre(image: Tensor, image_size: int) -> Tensor:
    """Cut torchvision's CenterCrop(image_size) from (H, W, 3)."""
    top, left = (round((side - image_size) / 2.0) for side in image.shape[:2])
    return image[top : top + image_size, left : left + image_size]
