"""Width, height and soundness of a stored image from its first and last bytes, without decoding it where that is enough."""

import io
import os
import struct
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")  # decided by content, never by extension
_FIRST = 16 * 1024
_SUSPICIOUS = 50_000_000  # pixels; more are decoded, for Pillow refuses what it takes for a decompression bomb
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}


class Header(NamedTuple):
    """What the index keeps of one file; `fault` is empty where it is sound."""

    width: int
    height: int
    fault: str


def read_header(path: str) -> Header:
    """Look at one file.

    A JPEG without an end-of-image marker at its end, anything but JPEG and PNG, and whatever claims to be huge is decoded whole:
    trailing bytes are harmless, a truncated picture or a bomb is not.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            first = file.read(_FIRST)
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                return Header(0, 0, "is empty")
            last = os.pread(file.fileno(), 12, max(0, size - 12))
    except OSError as error:
        return Header(0, 0, f"cannot be read ({error.strerror})")
    sizes = _jpeg_size(first) if first[:2] == b"\xff\xd8" else _png_size(first)
    whole = last.endswith(b"\xff\xd9") if first[:2] == b"\xff\xd8" else last[4:8] == b"IEND"
    if sizes is not None and whole and 0 < sizes[0] * sizes[1] <= _SUSPICIOUS:
        return Header(*sizes, "")
    return _decoded(path)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Walk the segments to the frame header (ITU-T T.81, B.2.2)."""
    position = 2
    while position + 9 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _JPEG_BARE:
            position += 2
        elif marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return width, height
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def _png_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 24 or data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _decoded(path: str) -> Header:
    try:
        with open(path, "rb") as file:
            data = file.read()
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            image.load()
    except UnidentifiedImageError:
        return Header(0, 0, "is no image of a known format")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return Header(0, 0, f"cannot be decoded ({error})")
    return Header(width, height, "")
