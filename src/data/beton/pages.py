"""A .beton that grows, under a temporary name."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from src.data.beton.format import Field, Layout, build_head
from src.files import TEMPORARY_PREFIX

_ZEROS = bytes(2**20)


class Pages:
    """The growing file. Samples are placed one behind the other; one that does not fit into its page begins the next.

    Args:
        file: empty, open for writing.
        fields: of each sample.
        count: at most so many samples will come.
        page_size: bytes, a power of two. Grows.
    """

    def __init__(self, file: BinaryIO, fields: tuple[Field, ...], count: int, page_size: int) -> None:
        self._file, self._fields, self.page_size = file, fields, page_size
        self._at = 0
        self._pad(Layout(self._fields, page_size, count, 0, 0).data_at)

    @property
    def at(self) -> int:
        """How many bytes there are."""
        return self._at

    def place(self, data: bytes | memoryview) -> int:
        """Append one sample, and return where it begins."""
        size = len(data)
        while self.page_size < size:
            self.page_size *= 2  # what straddles no page straddles no larger one
        if size > self.page_size - self._at % self.page_size:
            self._pad(-self._at % self.page_size)
        start = self._at
        self._file.write(data)
        self._at += size
        return start

    def finish(self, rows: NDArray[Any], table: NDArray[Any]) -> int:
        """End the last page, write the allocation table, metadata and header, and return the file's size."""
        self._pad(-self._at % self.page_size)
        layout = Layout(self._fields, self.page_size, len(rows), self._at, self._at + table.nbytes)
        self._file.write(table.tobytes())
        self._file.seek(layout.metadata_at)
        self._file.write(rows.tobytes())
        self._file.seek(0)
        self._file.write(build_head(layout))  # last: until then alloc_table_ptr is 0
        self._file.flush()
        os.fsync(self._file.fileno())
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # read back from the disk, not from memory
        return layout.size

    def _pad(self, count: int) -> None:
        self._at += count
        while count:
            count -= self._file.write(_ZEROS[: min(count, len(_ZEROS))])


@contextlib.contextmanager
def temporary_file(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Open the file under its temporary name, for this process alone; a killed writer's is written over."""
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f"{TEMPORARY_PREFIX}{target.name}")
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b", buffering=len(_ZEROS)) as file:
        busy = OSError(errno.EBUSY, f"another process is writing {target}. Wait for it, or end it")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        except OSError:
            pass  # some shared file systems have no locks
        if not path.exists() or os.fstat(file.fileno()).st_ino != path.stat().st_ino:
            raise busy  # it was finished, and renamed, between opening and locking
        try:
            file.truncate(0)
            yield path, file
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            with contextlib.suppress(OSError):
                file.close()  # which flushes, perhaps to a full disk
            raise
