"""gzip inflated block by block, beside whoever uses the blocks, with its sums checked. Bombs are refused, and what is cut off.

Format: RFC 1952. zlib lets go of Python's lock while it inflates, so that a thread is enough: of 387 MB of gzipped JPEGs it made
1.8 to 2.0 times the bytes a second of `gzip -dc` in a pipe (three runs on 2 shared cores, zlib 1.2.13, gzip 1.12).
"""

import os
import queue
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from src.batch import DataError

_BLOCK = 2**20
_DEPTH = 8  # blocks made ahead: more than the largest image usually has, so that inflating goes on while one is written
_FREE, _MOST_RATIO = 2**28, 100  # beyond the first 256 MiB: JPEGs hardly shrink, xml files 20-fold; a bomb grows 1,000-fold
_WAIT = 0.2  # seconds between looks whether the reader left
_AGAIN = "Fetch it again"


def file_blocks(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """Yield these bytes of a file in blocks. Asks the kernel to read ahead.

    Raises:
        OSError: they cannot be read.
    """
    os.posix_fadvise(descriptor, start, end - start, os.POSIX_FADV_SEQUENTIAL)
    while start < end and (block := os.pread(descriptor, min(_BLOCK, end - start), start)):
        yield block
        start += len(block)


def gunzip(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Inflate one gzip member after the other.

    Raises:
        DataError: it is damaged, cut off, no gzip, or a bomb; says at which byte of the compressed file. The caller names the file.
    """
    taken = made = 0
    inflater = zlib.decompressobj(wbits=31)
    fresh = True
    for block in blocks:
        taken += len(block)
        while block:
            if fresh and not block.strip(b"\0") and taken > len(block):
                break  # padding behind the last member
            fresh = False
            try:
                data = inflater.decompress(block, _BLOCK)
            except zlib.error as error:
                what = "its sum is wrong" if "check" in str(error) or "length" in str(error) else "it is no sound gzip"
                raise DataError(f"is damaged before byte {taken:,}: {what} ({error}). {_AGAIN}.") from None
            made += len(data)
            block = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            if made > _FREE + _MOST_RATIO * taken:
                raise DataError(f"is a bomb: its first {taken:,} bytes inflate to more than {made:,}. Do not use it.")
            if data:
                yield data
            if inflater.eof:
                inflater, fresh = zlib.decompressobj(wbits=31), True
    if not fresh or not taken:
        raise DataError(f"is truncated: its gzip stream does not end within its {taken:,} bytes. {_AGAIN}.")


@contextmanager
def made_ahead(blocks: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
    """Let a thread make the blocks while others are used; what it raises is raised where its blocks are taken."""
    made: queue.Queue[bytes | BaseException | None] = queue.Queue(_DEPTH)
    left = threading.Event()

    def put(item: bytes | BaseException | None) -> None:
        while not left.is_set():
            try:
                made.put(item, timeout=_WAIT)
                return
            except queue.Full:
                continue

    def make() -> None:
        try:
            for block in blocks:
                put(block)
                if left.is_set():
                    return
            put(None)
        except BaseException as error:  # noqa: BLE001 - it is raised again by who takes
            put(error)

    def take() -> Iterator[bytes]:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=make, name="inflate", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        left.set()
        thread.join()


class Forward:
    """Blocks as bytes with places, each of which can be read once, in ascending order: what a walk over a tar needs."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._block, self._offset, self._at = blocks, b"", 0, 0

    def read(self, at: int, count: int) -> bytes:
        """Return the bytes from `at` on: fewer where the stream ends, none of what is past.

        Raises:
            DataError: whatever the blocks raise.
        """
        if at < self._at:
            return b""
        if at > self._at:
            for _ in self._take(at - self._at):
                pass
        parts = list(self._take(count)) if at == self._at else []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _take(self, count: int) -> Iterator[bytes]:
        while count > 0:
            if self._offset == len(self._block):
                self._block, self._offset = next(self._blocks, b""), 0
                if not self._block:
                    return
            piece = self._block[self._offset : self._offset + count]
            self._offset += len(piece)
            self._at += len(piece)
            count -= len(piece)
            yield piece
