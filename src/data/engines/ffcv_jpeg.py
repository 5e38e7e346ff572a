"""What a JPEG must hold before FFCV may decode it (ITU-T T.81, annex B). Written for numba: plain loops over bytes, no objects.

turbojpeg would silently scale a larger image down, fill a part of the memory with a smaller one, and take a table that is missing
from the image before, as FFCV keeps one decoder a thread. What is refused here goes to the reference, which decides.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

IsComplete = Callable[[NDArray[np.uint8], int, int], bool]


def compile_check(compiled: Callable[[Any], Any]) -> IsComplete:
    """Build the check of one JPEG.

    Args:
        compiled: what compiles a function.

    Returns:
        A function of (data uint8 (n,), width, height): whether a baseline, extended or progressive JPEG of this size defines every
        table before it uses it. Whether its data are whole is seen in decoding.
    """
    defined_tables, frame_tables = compiled(_defined_tables), compiled(_frame_tables)
    scan_tables, next_marker = compiled(_scan_tables), compiled(_next_marker)

    def is_complete(data: NDArray[np.uint8], width: int, height: int) -> bool:
        if len(data) < 4 or data[0] != 0xFF or data[1] != 0xD8:
            return False
        position, components, progressive, defined, needed = 2, 0, False, 0, 0
        while position + 4 <= len(data):
            marker = data[position + 1]
            if data[position] != 0xFF:
                return False
            if marker == 0xFF or marker == 0x01:
                position += 1 if marker == 0xFF else 2
                continue
            start, end = position + 4, position + 2 + data[position + 2] * 256 + data[position + 3]
            if end > len(data) or end < start:
                return False
            if marker == 0xC4 or marker == 0xDB:
                defined |= defined_tables(data, start, end, marker == 0xC4)
            elif marker == 0xC0 or marker == 0xC1 or marker == 0xC2:
                if components or end - start < 6 or end - start != 6 + 3 * data[start + 5]:
                    return False
                if data[start + 1] * 256 + data[start + 2] != height or data[start + 3] * 256 + data[start + 4] != width:
                    return False
                progressive, components = marker == 0xC2, data[start + 5] + 0
                needed |= frame_tables(data, start)
            elif marker == 0xDA:
                if components == 0 or end - start < 6 or end - start != 4 + 2 * data[start]:
                    return False
                needed |= scan_tables(data, start, progressive)
                if needed & ~defined:
                    return False
                if not progressive and data[start] == components:
                    return True
                end = next_marker(data, end)
                if end + 1 < len(data) and data[end + 1] == 0xD9:
                    return True
            elif marker < 0xE0 and marker != 0xDD:
                return False  # arithmetic coding, lossless, hierarchical, or no image at all
            position = end
        return False

    check: IsComplete = compiled(is_complete)
    return check


# Tables are bits: 0-15 quantisation, 16-31 Huffman for DC, 32-47 for AC; those beyond the four of each are used by no sound image.


def _defined_tables(data: NDArray[np.uint8], at: int, end: int, huffman: bool) -> int:
    """Return the tables that a segment defines."""
    tables = 0
    while at < end:
        kind, number = data[at] >> 4, data[at] & 15
        if huffman:
            tables |= 1 << (16 + 16 * (kind & 1) + number)
            at += 17 + int(data[at + 1 : at + 17].sum())
        else:
            tables |= 1 << (number + 0)
            at += 65 + 64 * (kind & 1)
    return tables


def _frame_tables(data: NDArray[np.uint8], start: int) -> int:
    """Return the quantisation tables that a frame header names."""
    tables = 0
    for component in range(data[start + 5]):
        tables |= 1 << ((data[start + 8 + 3 * component] & 15) + 0)
    return tables


def _scan_tables(data: NDArray[np.uint8], start: int, progressive: bool) -> int:
    """Return the Huffman tables that a scan needs; one that refines DC coefficients needs none."""
    last = start + 1 + 2 * data[start]
    first, refines = data[last], data[last + 2] >> 4
    tables = 0
    for component in range(data[start]):
        both = data[start + 2 + 2 * component]
        if not progressive or (first == 0 and refines == 0):
            tables |= 1 << (16 + (both >> 4))
        if not progressive or first > 0:
            tables |= 1 << (32 + (both & 15))
    return tables


def _next_marker(data: NDArray[np.uint8], at: int) -> int:
    """Return where the entropy-coded data that begin here end."""
    while at + 1 < len(data) and (data[at] != 0xFF or data[at + 1] == 0 or 0xD0 <= data[at + 1] <= 0xD7):
        at += 1
    return at
