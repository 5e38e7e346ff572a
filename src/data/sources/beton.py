"""The .beton source: FFCV's file, read by our own code, without a copy.

The file is mapped into memory once; samples are slices of the map. A file that is cut or written over while it is mapped would end
the process (SIGBUS), or hand out other bytes than were checked: so each read compares size and modification time with those at
opening, and refuses. What remains is a file cut between that look and the decoding. A file that is deleted or replaced by renaming
stays whole for those who have it open.

What is noticed at opening: whatever contradicts itself (see beton/format.py); and, where the sidecar stands beside the file,
any change in labels, sizes, pointers or the allocation table. A changed bit within an image is seen by `verify` only.
"""

import hashlib
import mmap
import os
import stat
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.batch import DataError, Encoded
from src.data.beton import sidecar as beside
from src.data.beton.format import ALLOCATION, HEADER, RAW, Layout, columns, head_size, locate, parse_layout, refuse

_MOST_CLASSES = 1_000_000  # without names beside the file: a larger label is damage
_REMEDY = "Copy the file again from where it came from, or write it anew."
_BLOCK = 2**23


class BetonSource:
    """Chosen samples of a .beton of version 2, written by FFCV or by us.

    Args:
        path: of the file. Its one RGB image field is the image, its first int field the label.
        choose: labels (n,) of the whole file to the rows that are wanted.
        num_classes: how many classes there are, where no names stand beside the file; by default what the labels tell.

    Attributes:
        path: of the file.
        ids: int64 (n,), the chosen rows of the file.
        named: whether class names stood beside the file; else they are class_0000, class_0001, ...
        faults: index in this source to what is wrong with that sample. Only what the file and its sidecar tell: nothing is decoded.

    Raises:
        DataError: the file, or what stands beside it, cannot be used; the exact reason, and what to do.
    """

    def __init__(
        self, path: Path, *, choose: Callable[[NDArray[np.int64]], NDArray[np.int64]], num_classes: int | None = None
    ) -> None:
        self.path, self._name = path, path.name
        self._descriptor, self._opened = _open(path)
        weakref.finalize(self, os.close, self._descriptor)
        try:
            layout, table = _read(self._descriptor, self._opened.st_size)
        except DataError as error:
            raise DataError(f"{path} {error}. {_REMEDY}") from None
        found = beside.load(path)
        if found is not None:
            beside.check(found, path, self._descriptor, layout, table.starts, table.ends)
        self.named, self._sha256 = found is not None, found.sha256 if found is not None else None
        self.classes = self._classes(table.labels, found, num_classes)
        self.ids = np.asarray(choose(table.labels), np.int64)
        self.labels = table.labels[self.ids]
        self.sizes = table.sizes[self.ids]
        self._raw = table.raw[self.ids]
        self._starts, self._ends = table.starts[self.ids], table.ends[self.ids]
        self.faults = self._faults([] if found is None else found.bad)
        self._map = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
        self._view, self._bytes = memoryview(self._map), np.frombuffer(self._map, np.uint8)

    def __len__(self) -> int:
        """Return how many samples were chosen."""
        return len(self.ids)

    def read(self, index: int) -> Encoded:
        """Return one image's bytes, or pixels uint8 (height, width, 3): read-only views of the file."""
        now = os.fstat(self._descriptor)
        if now.st_size != self._opened.st_size or now.st_mtime_ns != self._opened.st_mtime_ns:
            raise DataError(f"{self.name(index)} cannot be read: {self.path} was changed after it was opened. Start again.")
        start, end = self._starts.item(index), self._ends.item(index)
        width, height = self.sizes.item(index, 0), self.sizes.item(index, 1)
        if self._raw.item(index):
            return Encoded(self._bytes[start:end].reshape(height, width, 3), "raw", width, height)
        return Encoded(self._view[start:end], "codestream", width, height)

    def name(self, index: int) -> str:
        """Return `<file>#<row in the file>`."""
        return f"{self._name}#{self.ids.item(index)}"

    def read_from(self, path: Path) -> None:
        """Let those who open the file by its path (FFCV) open this copy of it."""
        self.path = path

    def verify(self, stopped: Callable[[], bool] = lambda: False) -> str:
        """Read the whole file, and compare its sha256 with the one beside it.

        Args:
            stopped: asked every 8 MiB; ends it early.

        Returns:
            The sha256 (of what was read).

        Raises:
            DataError: there is none beside it, or it is another: some image, label or pointer was changed.
        """
        digest = hash_file(self._descriptor, stopped)
        if stopped():
            return digest
        if self._sha256 is None:
            raise DataError(f"{self.path} has no {beside.sidecar_path(self.path).name} beside it, which would hold its sha256.")
        if digest != self._sha256:
            raise DataError(f"{self.path} is damaged: its sha256 is {digest}, and should be {self._sha256}. {_REMEDY}")
        return digest

    def _classes(self, labels: NDArray[np.int64], found: beside.Sidecar | None, num_classes: int | None) -> tuple[str, ...]:
        if found is not None:
            count, says = len(found.classes), f"{beside.sidecar_path(self.path).name} names"
        else:
            count, says = num_classes or _MOST_CLASSES, "there are" if num_classes else "there are at most"
        outside = (labels < 0) | (labels >= count)
        if outside.any():
            row = int(outside.argmax())
            raise DataError(
                f"{self.path} holds {np.count_nonzero(outside):,} labels outside its classes, the first {labels[row]} of sample "
                f"#{row}: {says} {count:,} classes, counted from 0. {_REMEDY}"
            )
        return found.classes if found is not None else _numbered(num_classes or int(labels.max()) + 1)

    def _faults(self, bad: list[tuple[int, str]]) -> dict[int, str]:
        empty = np.flatnonzero(self._ends == self._starts).tolist()
        faults: dict[int, str] = dict.fromkeys(empty, "has no pixels")
        if bad:
            indices = {row: index for index, row in enumerate(self.ids.tolist())}
            faults |= {indices[row]: reason for row, reason in bad if row in indices}
        return faults


class _Table(NamedTuple):
    """The file's samples by columns: int64, int32 (n, 2), bool, int64, int64."""

    labels: NDArray[np.int64]
    sizes: NDArray[np.int32]
    raw: NDArray[np.bool_]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


def read_layout(descriptor: int) -> Layout:
    """Read what the header and the descriptors of an open file say."""
    size = os.fstat(descriptor).st_size
    header = _bytes_of(descriptor, 0, min(size, HEADER.itemsize))
    return parse_layout(_bytes_of(descriptor, 0, min(size, head_size(header))), size)


def hash_file(descriptor: int, stopped: Callable[[], bool] = lambda: False) -> str:
    """Return the sha256 of an open file, from the disk where it is not in memory."""
    digest, at = hashlib.sha256(), 0
    while not stopped() and (block := os.pread(descriptor, _BLOCK, at)):
        digest.update(block)
        at += len(block)
    return digest.hexdigest()


def _open(path: Path) -> tuple[int, os.stat_result]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}.") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise DataError(f"{path} is no file. Name the .beton itself.")
    return descriptor, status


def _read(descriptor: int, size: int) -> tuple[Layout, _Table]:
    layout = read_layout(descriptor)
    image, label = columns(layout)
    rows = np.frombuffer(_bytes_of(descriptor, layout.metadata_at, layout.metadata_end - layout.metadata_at), layout.row)
    allocations = np.frombuffer(_bytes_of(descriptor, layout.table_at, size - layout.table_at), ALLOCATION)
    starts, lengths = locate(layout, rows, allocations, image)
    sizes = np.stack([rows[image]["width"], rows[image]["height"]], axis=1).astype(np.int32)
    return layout, _Table(rows[label].astype(np.int64), sizes, rows[image]["mode"] == RAW, starts, starts + lengths)


def _bytes_of(descriptor: int, start: int, count: int) -> bytearray:
    data = bytearray(count)
    view, done = memoryview(data), 0
    while done < count:
        got = os.preadv(descriptor, [view[done:]], start + done)
        if got == 0:
            refuse(f"became shorter while it was opened: it ended at byte {start + done:,}")
        done += got
    return data


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"class_{label:04d}" for label in range(count))


def open_all(path: Path) -> BetonSource:
    """Open every sample of a file."""
    return BetonSource(path, choose=lambda labels: np.arange(len(labels), dtype=np.int64))
