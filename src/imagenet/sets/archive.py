"""The files of a tar or tar.gz from front to back, whatever is in it; what makes a unit of them decides which it takes."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from src.batch import DataError
from src.data.tar.walk import UNKNOWN, each_member
from src.imagenet.pieces import MOST_BYTES
from src.imagenet.streams.inflate import Forward, file_blocks, gunzip, made_ahead

_GZIP = b"\x1f\x8b"
_MOST_MEMBERS = 2**22


class Member(NamedTuple):
    """One file in an archive.

    Attributes:
        path: within the archive, without ".." and not absolute.
        length: of its content, bytes.
        read: returns its content, before the next member is asked for.
    """

    path: str
    length: int
    read: Callable[[], bytes]


@contextmanager
def archive_members(path: str) -> Iterator[Iterator[Member]]:
    """Walk a tar; a gzip is inflated in a thread beside whoever uses the members.

    Raises:
        DataError: it is damaged or hostile; names it. Also what is raised within, as DataError without the archive's name, gets it.
        OSError: it cannot be read.
    """
    with ExitStack() as stack:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        size = os.fstat(descriptor).st_size
        if os.pread(descriptor, 2, 0) == _GZIP:
            inflated = stack.enter_context(made_ahead(gunzip(file_blocks(descriptor, 0, size))))
            members = _members(Forward(inflated).read, UNKNOWN)
        else:
            members = _members(lambda at, count: os.pread(descriptor, count, at), size)
        try:
            yield members
        except DataError as error:
            raise DataError(f"{path} {error}") from None


def _members(read: Callable[[int, int], bytes], end: int) -> Iterator[Member]:
    for number, (path, first, length) in enumerate(each_member(read, 0, end)):
        if number == _MOST_MEMBERS:
            raise DataError(f"holds more than {_MOST_MEMBERS:,} files. Fetch it again from where it is published.")
        yield Member(path, length, lambda path=path, first=first, length=length: _content(read, path, first, length))  # type: ignore[misc]


def _content(read: Callable[[int, int], bytes], path: str, first: int, length: int) -> bytes:
    if length > MOST_BYTES:
        raise DataError(f"holds {path[:300]!r} of {length:,} bytes: no file in it has so many. Fetch it again.")
    content = read(first, length)
    if len(content) < length:
        raise DataError(f"is truncated: {path[:300]!r} should have {length:,} bytes, {len(content):,} are there. Fetch it again.")
    return content
