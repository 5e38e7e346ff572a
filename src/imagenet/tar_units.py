"""Units of tars that are read in place: a class tar, or a run of images of a flat tar. Nothing is unpacked but what is handed out.

An inner tar is read where it lies in the outer one, header by header and image by image, in ascending order: no copy of it is made,
and no more than one image is held in memory.
"""

import contextlib
import os
import re
from array import array
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from src.batch import DataError
from src.data.tar.walk import each_member
from src.imagenet.names import CLASS_TAR, IMAGE_BYTES, TRAIN
from src.imagenet.pieces import MOST_BYTES, Piece, Split

RUN = 5_000  # images of a flat tar that are one unit
_FETCH = "Get the archive again from where it is published"


class ClassTar:
    """A tar of one class's training images, a file of its own or within another.

    Args:
        path: of the file.
        start: of the tar's first byte in it.
        length: bytes.
        wnid: of the class.
        name: see Unit; for messages, too.
    """

    def __init__(self, path: Path, start: int, length: int, wnid: str, name: str) -> None:
        self._path, self._start, self._length, self._wnid = path, start, length, wnid
        self.name, self.bytes = name, length
        self.files = max(1, length // IMAGE_BYTES)

    def pieces(self, start: int) -> Iterator[Piece]:
        """See Unit."""
        try:
            with _opened(self._path) as descriptor:
                os.posix_fadvise(descriptor, self._start, self._length, os.POSIX_FADV_SEQUENTIAL)
                yield from self._pieces(descriptor, start)
        except DataError as error:
            raise DataError(f"{self.name} {error}") from None

    def _pieces(self, descriptor: int, start: int) -> Iterator[Piece]:
        seen: set[str] = set()
        for name, first, size in each_member(partial(_pread, descriptor), self._start, self._start + self._length):
            match = TRAIN.fullmatch(name)
            if match is None or match[1] != self._wnid:
                raise DataError(f"holds {name[:300]!r}, which is no image of class {self._wnid} by its name. {_FETCH}.")
            if name in seen:
                raise DataError(f"holds {name} twice. Which one is right cannot be told. {_FETCH}.")
            seen.add(name)
            check_size(name, size)
            if len(seen) > start:
                yield Piece("train", self._wnid, name, _read(descriptor, first, size, name))
        if not seen:
            raise DataError(f"holds no image. {_FETCH}.")


class FlatRun:
    """A run of images in a flat tar: validation or test images, whose names are all that is known.

    Args:
        path: of the tar.
        split: they are of.
        members: of the whole tar.
        first: the run's first among them.
        last: the one behind its last.
    """

    def __init__(self, path: Path, split: Split, members: "Members", first: int, last: int) -> None:
        self._path, self._split, self._members, self._first, self._last = path, split, members, first, last
        self.name = f"{path.name}/{first}-{last}"
        self.files, self.bytes = last - first, sum(members.lengths[first:last])

    def pieces(self, start: int) -> Iterator[Piece]:
        """See Unit."""
        members = self._members
        try:
            with _opened(self._path) as descriptor:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
                for index in range(self._first + start, self._last):
                    name = members.names[index]
                    content = _read(descriptor, members.starts[index], members.lengths[index], name)
                    yield Piece(self._split, "", name, content)
        except DataError as error:
            raise DataError(f"{self._path} {error}") from None


class Members(NamedTuple):
    """The images of a flat tar, by columns, in the tar's order.

    Attributes:
        names: of files, without folders.
        starts: first byte of each.
        lengths: bytes of each.
    """

    names: list[str]
    starts: "array[int]"
    lengths: "array[int]"


def class_tars(path: Path) -> list[ClassTar]:
    """List the class tars in a tar, by its headers.

    Raises:
        DataError: it is damaged, or holds something else, or a class twice; names the member.
        OSError: it cannot be read.
    """
    units: dict[str, ClassTar] = {}
    for member, start, length in _members(path):
        match = CLASS_TAR.fullmatch(member)
        if match is None:
            raise DataError(f"{path} holds {member[:300]!r}, which is no class tar such as n01440764.tar. {_FETCH}.")
        if match[1] in units:
            raise DataError(f"{path} holds {match[0]} twice. Which one is right cannot be told. {_FETCH}.")
        units[match[1]] = ClassTar(path, start, length, match[1], f"{path.name}/{match[0]}")
    if not units:
        raise DataError(f"{path} holds no class tar. {_FETCH}.")
    return list(units.values())


def flat_runs(path: Path, split: Split, pattern: re.Pattern[str]) -> list[FlatRun]:
    """List the runs of a flat tar, by its headers.

    Args:
        path: of the tar.
        split: of its images.
        pattern: of their names. They may lie in a folder named like the split, as in the published test tar.

    Raises:
        DataError: it is damaged, or holds something else, or an image twice; names the member.
        OSError: it cannot be read.
    """
    names: dict[str, None] = {}
    members = Members([], array("q"), array("q"))
    for member, start, size in _members(path):
        name = member.removeprefix(f"{split}/")
        if not pattern.fullmatch(name):
            raise DataError(f"{path} holds {member[:300]!r}, which is no {split} image of ILSVRC2012 by its name. {_FETCH}.")
        if name in names:
            raise DataError(f"{path} holds {name} twice. Which one is right cannot be told. {_FETCH}.")
        try:
            check_size(name, size)
        except DataError as error:
            raise DataError(f"{path} {error}") from None
        names[name] = None
        members.starts.append(start)
        members.lengths.append(size)
    if not names:
        raise DataError(f"{path} holds no image. {_FETCH}.")
    members.names.extend(names)
    return [FlatRun(path, split, members, first, min(first + RUN, len(names))) for first in range(0, len(names), RUN)]


def check_size(name: str, size: int) -> None:
    """Refuse what is no image by its size.

    Raises:
        DataError: the caller names the archive.
    """
    if size == 0:
        raise DataError(f"holds {name}, which is empty. {_FETCH}.")
    if size > MOST_BYTES:
        raise DataError(f"holds {name} of {size:,} bytes: no image of ImageNet has more than {MOST_BYTES:,}. {_FETCH}.")


def _members(path: Path) -> Iterator[tuple[str, int, int]]:
    try:
        with _opened(path) as descriptor:
            yield from each_member(partial(_pread, descriptor), 0, os.fstat(descriptor).st_size)
    except DataError as error:
        raise DataError(f"{path} {error}") from None


def _pread(descriptor: int, at: int, count: int) -> bytes:
    return os.pread(descriptor, count, at)


def _read(descriptor: int, start: int, size: int, name: str) -> bytes:
    content = os.pread(descriptor, size, start)
    if len(content) < size:
        raise DataError(f"became shorter while it was read: {name} should have {size:,} bytes. Start again.")
    return content


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
