"""What a page holds: which rows have a value, and where each value's bytes lie in the decompressed page.

Format: apache/parquet-format, Encodings.md (PLAIN, RLE / bit-packing hybrid, RLE_DICTIONARY).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.batch import DataError

Read = Callable[[int, int], bytes]


class Spans(NamedTuple):
    """int64 (n,) each: a value's first byte in the decompressed page, and its bytes."""

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]


def plain_spans(read: Read, begin: int, size: int, count: int) -> Spans:
    """Walk over byte arrays, each behind its length. They must fill the page.

    Args:
        read: (start, count) to bytes of the decompressed page.
        begin: where the first length stands.
        size: bytes of the page.
        count: values.
    """
    if count > (size - begin) // 4:
        raise DataError(f"{count:,} values cannot lie in {size - begin:,} bytes")
    starts, lengths = np.empty(count, np.int64), np.empty(count, np.int64)
    at = begin
    for value in range(count):
        length = int.from_bytes(read(at, 4), "little") if at + 4 <= size else size
        if length > size - at - 4:
            raise DataError(f"value {value} of {count} reaches beyond its page")
        starts[value], lengths[value] = at + 4, length
        at += 4 + length
    if at != size:
        raise DataError(f"{count} values leave {size - at:,} bytes of their page over")
    return Spans(starts, lengths)


def hybrid(data: bytes, width: int, count: int) -> NDArray[np.int64]:
    """Decode runs of equal numbers and of packed ones.

    Args:
        data: the runs.
        width: bits a number, 0 to 32.
        count: how many numbers.
    """
    found = np.empty(count, np.int64)
    at = done = 0
    while done < count:
        head, at = _varint(data, at)
        if head & 1:
            size = (head >> 1) * width
            numbers = _unpacked(_taken(data, at, size), width, (head >> 1) * 8, count - done)
        else:
            size = (width + 7) // 8
            if not 0 < head >> 1 <= count - done:
                raise DataError("a run of levels or indices is too long")
            numbers = np.full(head >> 1, int.from_bytes(_taken(data, at, size), "little"), np.int64)
        at += size
        found[done : done + len(numbers)] = numbers
        done += len(numbers)
    return found


def _unpacked(data: bytes, width: int, count: int, most: int) -> NDArray[np.int64]:
    if width == 0:
        return np.zeros(min(count, most), np.int64)
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").reshape(-1, width)[:most]
    if not len(bits):
        raise DataError("a run of levels or indices is empty")
    return bits.astype(np.int64) @ (1 << np.arange(width, dtype=np.int64))


def _taken(data: bytes, at: int, size: int) -> bytes:
    if size > len(data) - at:
        raise DataError("levels or indices reach beyond their page")
    return data[at : at + size]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while shift < 35:
        byte = _taken(data, at, 1)[0]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
        shift += 7
    raise DataError("a run of levels or indices has no length")
