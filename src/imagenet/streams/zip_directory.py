"""A zip's central directory, read block by block: Kaggle's has two million entries, 270 MB, more than objects should be made of.

Format: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 to 4.5 (zip64 among them). What two readers might understand differently is
refused: entries that overlap, names that lead elsewhere, links, encryption, a directory that does not fill its place.
"""

import os
import stat
import struct
from array import array
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

import numpy as np

from src.batch import DataError
from src.imagenet.streams.tree import MOST_MEMBERS

_END, _END64, _LOCATOR = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
ENTRY = struct.Struct("<4s6H3L5H2L")
_EXTRA, _LONG = struct.Struct("<HH"), struct.Struct("<Q")
_MOST_PLACE = 2**62
_MOST_COMMENT = 2**16
_BLOCK = 2**22
_MOST_ENTRY, _LOCAL_SIZE = ENTRY.size + 3 * 2**16, 30
_ZIP64, _FULL = 1, 0xFFFFFFFF
_ENCRYPTED = 0x2041  # bits 0, 6 and 13: encrypted, strongly, the directory too
_METHODS = {0: "stored", 8: "deflate"}
_OTHERS = {9: "deflate64", 12: "bzip2", 14: "LZMA", 93: "zstd", 95: "xz"}
_AGAIN = "Fetch it again"


class Entry(NamedTuple):
    """One member, as the central directory tells of it.

    Attributes:
        path: of the member; of a folder with a slash at its end.
        start: of its local header.
        stored: its bytes in the zip.
        size: its bytes.
        crc: CRC-32 of its bytes.
        deflated: or as it is.
        at: where its entry stands in the file.
        length: of its entry.
        names: bytes of its path.
    """

    path: str
    start: int
    stored: int
    size: int
    crc: int
    deflated: bool
    at: int
    length: int
    names: int


def entries(descriptor: int) -> Iterator[Entry]:
    """Yield all entries, and look at the end whether members overlap.

    Raises:
        DataError: what is wrong; the caller names the archive.
        OSError: it cannot be read.
    """
    start, end, count = _place(descriptor)
    extents = (array("Q"), array("Q"))
    at, block, found = start, b"", 0
    base = start  # the file's byte at which the block begins
    while at < end:
        if base + len(block) - at < _MOST_ENTRY and base + len(block) < end:
            base, block = at, os.pread(descriptor, min(_BLOCK, end - at), at)
        entry = parse(block, at - base, at)
        least = entry.start + _LOCAL_SIZE + entry.names + entry.stored
        if least > start:
            _refuse(f"is damaged: {entry.path} should end at byte {least:,}, where the directory at {start:,} has begun")
        extents[0].append(entry.start)
        extents[1].append(least)
        at, found = at + entry.length, found + 1
        if found > min(count, MOST_MEMBERS):
            break
        yield entry
    if found != count:
        _refuse(f"is damaged: its directory has {found:,} entries, and its end tells of {count:,}")
    _check_overlap(*extents)


def parse(block: bytes, offset: int, at: int) -> Entry:
    """Read one entry.

    Args:
        block: holds it whole.
        offset: in the block.
        at: in the file.

    Raises:
        DataError: what is wrong; the caller names the archive.
    """
    if len(block) - offset < ENTRY.size:
        _refuse(f"is damaged: its directory ends within an entry at byte {at:,}")
    magic, _, _, flags, method, _, _, crc, stored, size, names, extras, comment, disk, _, attributes, start = ENTRY.unpack_from(
        block, offset
    )
    if magic != b"PK\1\2":
        _refuse(f"is damaged: no entry of its directory stands at byte {at:,}")
    length = ENTRY.size + names + extras + comment
    if offset + length > len(block):
        _refuse(f"is damaged: its directory ends within an entry at byte {at:,}")
    first = offset + ENTRY.size
    path = block[first : first + names].decode("utf-8", "surrogateescape")
    if ".." in path or "\\" in path or "\0" in path or path[:1] in ("/", "") or path[1:2] == ":":
        _check_path(path)
    if flags & _ENCRYPTED:
        _refuse(f"holds {path}, which is encrypted", "Write it anew without")
    kind = stat.S_IFMT(attributes >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        _refuse(
            f"holds {path}, which is {'a symbolic link' if kind == stat.S_IFLNK else 'no file'}", "Write it anew from plain files"
        )
    if method not in _METHODS:
        _refuse(f"holds {path}, compressed with {_OTHERS.get(method, f'method {method}')}", "Write it anew with deflate")
    if _FULL in (size, stored, start):
        size, stored, start = _large(block[first + names : first + names + extras], path, [size, stored, start])
    if method == 0 and size != stored:
        _refuse(f"holds {path}, which is stored as it is in {stored:,} bytes and should have {size:,}")
    if disk not in (0, 0xFFFF):
        _refuse(f"is one part of several (disk {disk})", "Join them first")
    return Entry(path, start, stored, size, crc, method == 8, at, length, names)


def _place(descriptor: int) -> tuple[int, int, int]:
    """Find the central directory: its first byte, the byte behind it, and its number of entries."""
    whole = os.fstat(descriptor).st_size
    tail_at = max(0, whole - _MOST_COMMENT - _END.size)
    tail = os.pread(descriptor, whole - tail_at, tail_at)
    offset = tail.rfind(b"PK\5\6")
    while offset >= 0 and (len(tail) - offset < _END.size or offset + _END.size + _END.unpack_from(tail, offset)[7] != len(tail)):
        offset = tail.rfind(b"PK\5\6", 0, offset)
    if offset < 0:
        what = "is truncated: it does not end with a zip's directory" if tail_at or tail[:2] == b"PK" else "is no zip"
        _refuse(f"{what} ({whole:,} bytes)")
    _, disk, first, here, count, size, start, _ = _END.unpack_from(tail, offset)
    end = tail_at + offset
    if 0xFFFF in (here, count) or _FULL in (size, start):
        locator = os.pread(descriptor, _LOCATOR.size, max(0, end - _LOCATOR.size))
        if len(locator) == _LOCATOR.size and locator[:4] == b"PK\6\7":
            _, _, at, disks = _LOCATOR.unpack(locator)
            record = os.pread(descriptor, _END64.size, min(at, whole))
            if disks > 1 or len(record) < _END64.size or record[:4] != b"PK\6\6":
                _refuse("is damaged, or one part of several: its zip64 end is not where it should be")
            _, _, _, _, disk, first, here, count, size, start = _END64.unpack(record)
            end = at
    if disk or first or here != count:
        _refuse("is one part of several", "Join them first")
    if start + size != end:
        _refuse(f"is damaged: its directory should lie at bytes {start:,} to {start + size:,}, and ends at byte {end:,}")
    if count > MOST_MEMBERS:
        _refuse(f"holds {count:,} members, more than any such archive has")
    return start, end, count


def _large(extras: bytes, path: str, values: list[int]) -> tuple[int, int, int]:
    """Take what did not fit into 32 bits from the zip64 field, in its fixed order."""
    at = 0
    while at + _EXTRA.size <= len(extras):
        tag, length = _EXTRA.unpack_from(extras, at)
        at += _EXTRA.size
        if tag == _ZIP64:
            for place, value in enumerate(values):
                if value == _FULL:
                    if length < 8 or at + 8 > len(extras):
                        break
                    values[place] = _LONG.unpack_from(extras, at)[0]
                    at, length = at + 8, length - 8
            else:
                if max(values) < _MOST_PLACE:
                    return values[0], values[1], values[2]
            break
        at += length
    _refuse(f"is damaged: {path} lacks its zip64 sizes")


def _check_path(path: str) -> None:
    if not path or path[0] == "/" or "\0" in path or "\\" in path or path[1:2] == ":" or ".." in path.split("/"):
        _refuse(f"holds the path {path[:300]!r}", "Write it anew, from within its folder")


def _check_overlap(starts: "array[int]", ends: "array[int]") -> None:
    """Members must lie one behind the other: one deflated kernel in many members is how zip bombs grow (Fifield 2019)."""
    first, last = np.frombuffer(starts, np.uint64), np.frombuffer(ends, np.uint64)
    order = np.argsort(first, kind="stable")
    wrong = np.flatnonzero(last[order][:-1] > first[order][1:])
    if len(wrong):
        at = int(first[order][int(wrong[0]) + 1])
        _refuse(
            f"is a bomb or damaged: the members at bytes {int(first[order][int(wrong[0])]):,} and {at:,} overlap", "Do not use it"
        )


def _refuse(reason: str, remedy: str = _AGAIN) -> NoReturn:
    raise DataError(f"{reason}. {remedy}.")
