"""Where a snappy stream can be cut, so that one image of a large page is decompressed without the others.

Writers compress 64 KiB at a time, each without a look at the ones before (snappy.cc, `kBlockSize`); the format does not promise it,
so every element is looked at. pyarrow puts a hundred images into one page: without cuts each would cost 11 MB of decompression.
Format: google/snappy, format_description.txt.
"""

import numpy as np
from numpy.typing import NDArray

FRAGMENT = 2**16
_FEWEST = 2_000  # elements that are looked at in any case; photographs have some dozens in 64 KiB


def find_cuts(data: bytes, size: int) -> NDArray[np.uint32] | None:
    """Find where each 64 KiB of the decompressed bytes begin in the stream.

    Args:
        data: a whole stream, which decompresses to `size` bytes.
        size: of what it holds.

    Returns:
        uint32 (k + 1,), the last is the stream's end; None where it cannot be cut, or has so many elements that it
        would take long.
    """
    try:
        return _walk(data, size)
    except IndexError:  # it ends within an element
        return None


def piece(cuts: NDArray[np.uint32], start: int, length: int) -> tuple[int, int]:
    """Return from where to where the stream must be read for these decompressed bytes (at least one)."""
    return int(cuts[start // FRAGMENT]), int(cuts[(start + length - 1) // FRAGMENT + 1])


def as_stream(data: bytes, size: int) -> bytes:
    """Make a stream of its own of a piece that holds `size` bytes."""
    head = bytearray()
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + data


def _walk(data: bytes, size: int) -> NDArray[np.uint32] | None:
    at = 0
    while data[at] & 0x80:
        at += 1
    at += 1
    cuts = [at]
    found, begin, elements = 0, 0, 0
    most = _FEWEST + len(data) // 128
    while at < len(data):
        tag = data[at]
        kind = tag & 3
        if kind == 0:
            length = (tag >> 2) + 1
            extra = max(0, length - 60)
            if extra:
                length = int.from_bytes(data[at + 1 : at + 1 + extra], "little") + 1
            at += 1 + extra + length
        else:
            width = (1, 2, 4)[kind - 1]
            length = (tag >> 2 & 7) + 4 if kind == 1 else (tag >> 2) + 1
            back = int.from_bytes(data[at + 1 : at + 1 + width], "little") + ((tag >> 5) << 8 if kind == 1 else 0)
            if back > found - begin:
                return None
            at += 1 + width
        found += length
        elements += 1
        if found > begin + FRAGMENT or elements > most:
            return None
        if found == begin + FRAGMENT:
            begin = found
            cuts.append(at)
    if found != size or at != len(data):
        return None
    return np.array(cuts if begin == found else [*cuts, at], np.uint32)
