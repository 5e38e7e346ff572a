"""Files that stay open for reading, by many threads and after a fork: every read names its place, none moves a common position."""

import os
import stat
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from src.batch import DataError

_KEPT = 256  # descriptors; of more files each is opened for each read, for a process may hold 1,024


class OpenedFiles:
    """Some files, in the state in which they were opened.

    Attributes:
        paths: of the files.
        sizes: bytes of each.
        stamps: (resolved path, size, mtime in ns) of each: the state that an index belongs to.

    Raises:
        DataError: one cannot be opened, is no file, or is named twice.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        if not paths:
            raise DataError("no file is named.")
        self.paths = tuple(paths)
        self._kept: list[int] = []
        weakref.finalize(self, _close, self._kept)
        self._states: list[tuple[int, int]] = []
        for path in self.paths:
            descriptor = _open(path)
            status = os.fstat(descriptor)
            self._states.append((status.st_size, status.st_mtime_ns))
            if len(self.paths) <= _KEPT:
                self._kept.append(descriptor)
            else:
                os.close(descriptor)
        self.sizes = [size for size, _ in self._states]
        self.stamps = [(str(path.resolve()), *state) for path, state in zip(self.paths, self._states, strict=True)]
        names = [name for name, _, _ in self.stamps]
        if len(set(names)) < len(names):
            twice = next(path for path, name in zip(self.paths, names, strict=True) if names.count(name) > 1)
            raise DataError(f"{twice} is named twice. Name each file once.")

    @contextmanager
    def descriptor(self, file: int) -> Iterator[int]:
        """Lend one file's descriptor.

        Raises:
            OSError: the file is gone, or is not in the state in which it was opened first.
        """
        if self._kept:
            self._check(self._kept[file], file)
            yield self._kept[file]
            return
        descriptor = os.open(self.paths[file], os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._check(descriptor, file)
            yield descriptor
        finally:
            os.close(descriptor)

    def read(self, file: int, start: int, length: int) -> bytes:
        """Return bytes of one file.

        Raises:
            OSError: it cannot be read, or has changed since it was opened. `strerror` says what.
        """
        with self.descriptor(file) as descriptor:
            return read_exactly(descriptor, start, length)

    def _check(self, descriptor: int, file: int) -> None:
        status = os.fstat(descriptor)
        if (status.st_size, status.st_mtime_ns) != self._states[file]:
            raise OSError(0, f"{self.paths[file]} was changed after it was opened. Start again")


def read_exactly(descriptor: int, start: int, length: int) -> bytes:
    """Return all of these bytes.

    Raises:
        OSError: they cannot be read, or the file ends before.
    """
    data = os.pread(descriptor, length, start)
    if len(data) == length:
        return data
    pieces = [data]
    done = len(data)
    while data and done < length:  # a system hands out at most 2 GiB at once, and less when it is interrupted
        data = os.pread(descriptor, length - done, start + done)
        pieces.append(data)
        done += len(data)
    if done < length:
        raise OSError(0, f"the file ends at byte {start + done:,}, within it")
    return b"".join(pieces)


def _open(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not make us wait
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError(f"{path} is no file. Name the files themselves.")
    return descriptor


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
