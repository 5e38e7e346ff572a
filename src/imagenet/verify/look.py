"""One file, at levels 1 to 3: its size and first bytes, its headers, its pixels."""

import os
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from src.data.bad_files import NO_FILE, Stamp, stamp_from
from src.data.headers import Header, header_from, whole_header_of
from src.imagenet.verify.segments import Facts, facts_of

KINDS = ("unknown", "JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "empty", "unreadable")
_KIND = {name: number for number, name in enumerate(KINDS)}
_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    *((b"P%d" % number, "PPM") for number in range(1, 7)),
)
_FIRST = 16 * 1024  # as the index reads: nearly always up to the frame header
_MOST_SEGMENTS = 2**20
_JPEG = b"\xff\xd8"
_of_this_thread = threading.local()


class Look(NamedTuple):
    """What one file is.

    Attributes:
        kind: place in KINDS.
        size: bytes; -1 where it cannot be opened.
        width, height: pixels; 0 below level 2, or where it is bad.
        channels: of a JPEG's frame; 0 of others.
        orientation: of the EXIF block, 1 to 8; 0 where there is none.
        odd_metadata: bits: 1 a broken EXIF block, 2 a broken XMP packet. Training reads neither.
        crc: crc32 of the content at level 3, else -1.
        stamp: size, mtime_ns and ctime_ns of the file that was looked at.
        fault: why training cannot use it; "" where it can.
        warned: what Pillow warned of at level 3.
    """

    kind: int
    size: int
    width: int
    height: int
    channels: int
    orientation: int
    odd_metadata: int
    crc: int
    stamp: Stamp
    fault: str
    warned: str


def look_at_start(path: str) -> Look:
    """Look at size and first bytes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            first = os.read(descriptor, 16)
        finally:
            os.close(descriptor)
    except OSError as error:
        return _unreadable(error)
    return _look(first, status, Facts(), Header(0, 0, "" if status.st_size else "is empty"))


def look_at_header(path: str) -> Look:
    """Look at size and headers by the rules of the trainer's index, and at what the segments tell besides."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            first = os.pread(descriptor, _FIRST, 0)

            def read(start: int, count: int) -> bytes:
                return first if start == 0 and count == len(first) else os.pread(descriptor, count, start)

            header = header_from(read, status.st_size)
            facts = facts_of(first) if first[:2] == _JPEG else Facts()
            if not facts.complete and status.st_size > len(first):
                facts = facts_of(os.pread(descriptor, _MOST_SEGMENTS, 0))
        finally:
            os.close(descriptor)
    except OSError as error:
        return _unreadable(error)
    return _look(first, status, facts, header)


def look_at_pixels(path: str) -> Look:
    """Read all of a file and decode it, as strictly as Pillow does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            data = file.readall()
    except OSError as error:
        return _unreadable(error)
    facts = facts_of(data[:_MOST_SEGMENTS]) if data[:2] == _JPEG else Facts()
    heard: list[str] = []
    _of_this_thread.heard = heard
    header = whole_header_of(data)
    return _look(data[:16], status, facts, header)._replace(crc=zlib.crc32(data), warned="; ".join(heard))


LOOK_AT = {1: look_at_start, 2: look_at_header, 3: look_at_pixels}


@contextmanager
def warnings_heard() -> Iterator[None]:
    """Collect what is warned of by thread, and so by file: catch_warnings alone is for the whole process."""

    def hear(message: Warning | str, *_: object, **__: object) -> None:
        heard = getattr(_of_this_thread, "heard", None)
        if heard is not None:
            heard.append(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = hear
        yield


def _look(first: bytes, status: os.stat_result, facts: Facts, header: Header) -> Look:
    kind = _KIND["empty"] if not status.st_size else _kind_of(first)
    facts_and_sum = (facts.channels, facts.orientation, facts.odd, -1)
    return Look(kind, status.st_size, header.width, header.height, *facts_and_sum, stamp_from(status), header.fault, "")


def _kind_of(first: bytes) -> int:
    if first[:4] == b"RIFF" and first[8:12] == b"WEBP":
        return _KIND["WEBP"]
    return next((_KIND[name] for magic, name in _MAGIC if first.startswith(magic)), 0)


def _unreadable(error: OSError) -> Look:
    fault = f"cannot be read ({error.strerror})"
    return Look(_KIND["unreadable"], -1, 0, 0, 0, 0, 0, -1, NO_FILE, fault, "")
