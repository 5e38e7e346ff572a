"""What is stored of one image: shrunk as FFCV does, as a JPEG or as pixels. Every image is decoded whole, which verifies it."""

import io
import struct
import zlib
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from src.batch import DataError, Encoded
from src.data.beton.format import MAX_PAGE
from src.data.headers import FORMATS
from src.draws import Purpose, hash_words

LARGEST_SIDE = 65_535  # the file's widths and heights have 16 bits
_HUFFMAN = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive: not arithmetic, not lossless
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}
_PLAIN_RGB = (ord("R"), ord("G"), ord("B"))


class Recipe(NamedTuple):
    """How images are stored.

    Attributes:
        max_resolution: longest side in pixels; larger images are shrunk to it, none is enlarged. None keeps all.
        jpeg_quality: of what is encoded anew.
        mode: "jpg"; "raw", pixels, lossless; "proportion", a share of the samples as pixels and the others as JPEG.
        raw_fraction: that share.
        jpeg_bytes: "original" stores a JPEG's bytes unchanged where it needs no shrinking and every decoder reads it alike.
    """

    max_resolution: int | None
    jpeg_quality: int
    mode: Literal["jpg", "raw", "proportion"]
    raw_fraction: float
    jpeg_bytes: Literal["reencode", "original"]


class Stored(NamedTuple):
    """One image as it goes into the file.

    Attributes:
        data: a JPEG, or height * width * 3 bytes of pixels.
        raw: whether it is pixels.
        width: of what is stored.
        height: of what is stored.
        crc: zlib's crc32 of data.
        shrunk: whether it is smaller than it was.
        kept: whether data are the source's bytes.
    """

    data: bytes | memoryview
    raw: bool
    width: int
    height: int
    crc: int
    shrunk: bool
    kept: bool


def stored_raw(recipe: Recipe, count: int) -> NDArray[np.bool_]:
    """Return bool (count,): which samples of a source are stored as pixels. Depends on nothing but their number."""
    if recipe.mode != "proportion":
        return np.full(count, recipe.mode == "raw")
    draws = hash_words(int(Purpose.SUBSET), 2, np.arange(count)) >> np.uint64(11)
    return draws.astype(np.float64) * 2.0**-53 < recipe.raw_fraction


def shrunk_sizes(sizes: NDArray[np.int32], max_resolution: int | None) -> NDArray[np.int64]:
    """Return int64 (n, 2): widths and heights as stored, rounded down as FFCV does, at least one pixel."""
    whole = sizes.astype(np.int64)
    if max_resolution is None:
        return whole
    ratio = max_resolution / np.maximum(whole.max(axis=1, keepdims=True), 1)
    return np.where(ratio < 1, np.maximum((ratio * whole).astype(np.int64), 1), whole)


def store(encoded: Encoded, *, raw: bool, recipe: Recipe) -> Stored:
    """Decode, shrink and encode one image.

    Raises:
        DataError: it cannot be decoded, or is too large for the file; why, without its name.
    """
    try:
        pixels, plain = _decode(encoded)
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"cannot be decoded: {error}") from error
    was = pixels.shape[:2]
    width, height = shrunk_sizes(np.array([[was[1], was[0]]], np.int32), recipe.max_resolution)[0].tolist()
    shrunk = (height, width) != was
    kept = plain and not shrunk and not raw and recipe.jpeg_bytes == "original"
    if max(width, height) > LARGEST_SIDE or width * height * 3 > MAX_PAGE:
        raise DataError(f"is too large for a .beton: {width} x {height} px")
    if shrunk:
        pixels = shrink(pixels, width, height)
    data: bytes | memoryview
    if kept:
        assert not isinstance(encoded.data, np.ndarray)
        data = encoded.data
    else:
        data = np.ascontiguousarray(pixels).reshape(-1).data if raw else _jpeg(pixels, recipe.jpeg_quality)
    return Stored(data, raw, width, height, zlib.crc32(data), shrunk, kept)


def shrink(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Average over the area that each new pixel covers, as OpenCV's INTER_AREA does, to a grey level.

    Pillow's BOX, which counts a pixel whole or not at all, differs from it by 2 to 4 grey levels on average.

    Args:
        pixels: uint8 (H, W, 3).
        width: at most W.
        height: at most H.

    Returns:
        uint8 (height, width, 3).
    """
    tall, wide, _ = pixels.shape
    columns = _averaged(pixels.reshape(tall, wide * 3), height).reshape(height, wide, 3).transpose(1, 0, 2)
    averaged = _averaged(np.ascontiguousarray(columns).reshape(wide, height * 3), width).reshape(width, height, 3)
    return np.ascontiguousarray(np.rint(averaged.transpose(1, 0, 2)).astype(np.uint8))


def _averaged(rows: NDArray[np.uint8] | NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Average rows (m, k) to (count, k); a row on an edge counts by its share on either side."""
    edges = np.arange(count + 1) * (len(rows) / count)
    first = np.minimum(edges.astype(np.int64), len(rows) - 1)
    sums: NDArray[np.float32] = np.add.reduceat(rows, first[:-1], axis=0, dtype=np.float32)
    before = rows[first] * (edges - first).astype(np.float32)[:, None]  # of each edge's row, what lies before the edge
    sums -= before[:-1]
    sums[:-1] += before[1:-1]  # the last edge is the image's: nothing lies behind it
    return np.asarray(np.clip(sums * np.float32(count / len(rows)), 0, 255), np.float32)


def _decode(encoded: Encoded) -> tuple[NDArray[np.uint8], bool]:
    """Return uint8 (H, W, 3), never rotated, and whether it is a JPEG that every decoder reads alike."""
    if isinstance(encoded.data, np.ndarray):
        return encoded.data, False
    with Image.open(io.BytesIO(encoded.data), formats=FORMATS) as image:
        plain = image.format == "JPEG" and image.mode in ("RGB", "L") and _is_plain(bytes(encoded.data))
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB")), plain


def _is_plain(jpeg: bytes) -> bool:
    """Tell whether a JPEG is Huffman-coded, and grey or YCbCr: neither RGB stored as such, nor YCCK (ITU-T T.81, B.2.2)."""
    position, adobe = 2, 1
    while position + 10 <= len(jpeg):
        marker = jpeg[position + 1]
        if jpeg[position] != 0xFF:
            return False
        if marker == 0xFF:
            position += 1
        elif marker in _BARE:
            position += 2
        elif marker in _SIZES:
            components = tuple(jpeg[position + 10 + 3 * at : position + 11 + 3 * at] for at in range(jpeg[position + 9]))
            is_rgb = len(components) == 3 and (adobe == 0 or b"".join(components) == bytes(_PLAIN_RGB))
            return marker in _HUFFMAN and len(components) in (1, 3) and not is_rgb
        else:
            length = int.from_bytes(jpeg[position + 2 : position + 4], "big")
            if marker == 0xEE and jpeg[position + 4 : position + 9] == b"Adobe" and length >= 14:
                adobe = jpeg[position + 15]
            position += 2 + length
    return False


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """Encode with 4:2:0 subsampling, which is OpenCV's default and so FFCV's."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file.getvalue()
