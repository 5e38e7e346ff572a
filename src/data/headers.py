"""Width, height and soundness of a stored image from its first and last bytes, without decoding it where that is enough."""

import io
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from src.batch import Buffer

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")  # decided by content, never by extension
_FIRST = 16 * 1024
_LAST = 12
_SUSPICIOUS = 50_000_000  # pixels; more are decoded, for Pillow refuses what it takes for a decompression bomb
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}
_CHUNK = 512


class Header(NamedTuple):
    """What the index keeps of one image; `fault` is empty where it is sound."""

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
            return header_at(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    except OSError as error:
        return Header(0, 0, f"cannot be read ({error.strerror})")


def header_of(data: Buffer) -> Header:
    """Look at an image whose bytes are at hand, by the same rules."""
    view = np.frombuffer(data, np.uint8)
    return header_from(lambda start, count: view[start : start + count].tobytes(), len(view))


def header_at(descriptor: int, start: int, length: int) -> Header:
    """Look at an image that lies within an open file, by the same rules. Nothing else of the file is read.

    Raises:
        OSError: it cannot be read.
    """
    return header_from(lambda begin, count: os.pread(descriptor, count, start + begin), length)


def read_headers(
    ids: NDArray[np.int64],
    sizes: NDArray[np.int32],
    look: Callable[[int], Header],
    *,
    threads: int,
    progress: Callable[[int, int], None],
) -> dict[int, str]:
    """Look at many images, in threads.

    Args:
        ids: int64 (m,), which of them.
        sizes: int32 (n, 2), where width and height are put.
        look: reads one header.
        threads: how many.
        progress: called with (done, total).

    Returns:
        Index to what is wrong with that image.
    """

    def look_at_all(chunk: NDArray[np.int64]) -> list[Header]:
        return [look(index) for index in chunk.tolist()]

    faults: dict[int, str] = {}
    chunks = [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)]
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        for chunk, headers in zip(chunks, pool.map(look_at_all, chunks), strict=True):
            sizes[chunk] = [(header.width, header.height) for header in headers]
            faults |= {index: header.fault for index, header in zip(chunk.tolist(), headers, strict=True) if header.fault}
            done += len(chunk)
            progress(done, len(ids))
    return faults


def header_from(read: Callable[[int, int], bytes], length: int) -> Header:
    """Look at an image that a function reads, from a first byte so many, by the same rules."""
    if length == 0:
        return Header(0, 0, "is empty")
    first = read(0, min(length, _FIRST))
    last = read(max(0, length - _LAST), min(length, _LAST))
    is_jpeg = first[:2] == b"\xff\xd8"
    size = jpeg_size(first) if is_jpeg else _png_size(first)
    whole = last.endswith(b"\xff\xd9") if is_jpeg else last[4:8] == b"IEND"
    if size is not None and whole and 0 < size[0] * size[1] <= _SUSPICIOUS:
        return Header(*size, "")
    return decoded_header(read(0, length))


def whole_header_of(data: bytes) -> Header:
    """Decode all of an image. Width and height are those that `header_of` tells, also where its pixels turn out to be bad."""
    if not data:
        return header_of(data)
    decoded = decoded_header(data)
    return decoded if not decoded.fault else header_of(data)._replace(fault=decoded.fault)


def jpeg_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """Walk a JPEG's segments to the frame header (ITU-T T.81, B.2.2). Return width and height, or None where there is none."""
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


def decoded_header(data: bytes) -> Header:
    """Decode a whole image, strictly: a truncated one is bad. Width and height are zero where it is."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            image.load()
    except UnidentifiedImageError:
        return Header(0, 0, "is no image of a known format")
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        return Header(0, 0, f"cannot be decoded ({error})")
    return Header(width, height, "")
