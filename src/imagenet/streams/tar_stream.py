"""A tar that is read from front to back, plain or gzipped, wherever its bytes come from: pieces of the tree in it."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from src.batch import DataError
from src.data.tar.walk import UNKNOWN, each_member
from src.imagenet.pieces import MOST_BYTES, Piece
from src.imagenet.streams.inflate import Forward, file_blocks, gunzip, made_ahead
from src.imagenet.streams.tree import Seen, member_of

GZIP = b"\x1f\x8b"


class FileTar(NamedTuple):
    """A tar or tar.gz of the tree, as one unit.

    Attributes:
        path: of the file.
        name: see Unit.
        files: see Unit.
        bytes: see Unit.
    """

    path: Path
    name: str
    files: int
    bytes: int

    def pieces(self, start: int) -> Iterator[Piece]:
        """See Unit. A gzip is inflated from its beginning, whatever `start`; of a plain tar only the headers before it are read."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if os.pread(descriptor, 2, 0) == GZIP:
                yield from gzipped_pieces(str(self.path), file_blocks(descriptor, 0, size), start)
            else:
                yield from _pieces(str(self.path), lambda at, count: os.pread(descriptor, count, at), size, start)
        finally:
            os.close(descriptor)


def gzipped_pieces(name: str, blocks: Iterator[bytes], start: int) -> Iterator[Piece]:
    """Yield the pieces of a tar.gz that comes in blocks, inflated by a thread beside whoever writes them.

    Args:
        name: of the archive, for messages.
        blocks: compressed.
        start: the first piece to be yielded.

    Raises:
        DataError: see Unit.
    """
    with ExitStack() as stack:
        inflated = stack.enter_context(made_ahead(gunzip(blocks)))
        yield from _pieces(name, Forward(inflated).read, UNKNOWN, start)


def _pieces(name: str, read: Callable[[int, int], bytes], end: int, start: int) -> Iterator[Piece]:
    seen, number, last = Seen(), 0, ""
    try:
        for member, (path, first, length) in enumerate(each_member(read, 0, end)):
            last = path
            if length > MOST_BYTES and end == UNKNOWN:
                raise DataError(f"holds {path} of {length:,} bytes: there is no such file in it. Fetch it again.")
            found = member_of(path, length)
            if found is None:
                continue
            seen.add(found)
            number += 1
            if number <= start:
                continue
            content = read(first, length)
            if len(content) < length:
                raise DataError(f"is truncated: {path} (member {member:,}) should have {length:,} bytes. Fetch it again.")
            yield Piece(found.place, found.folder, found.name, content)
        seen.check()
    except DataError as error:
        behind = f" (behind {last})" if last and last not in str(error) else ""
        raise DataError(f"{name} {error}{behind}") from None
