"""A source whose encoded images lie in memory: one copy a node, which all of its ranks map.

The memory is an anonymous file (memfd): no name, not bounded by /dev/shm, gone with the last process that maps it, also by kill -9.
"""

import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.batch import Encoded, Source
from src.config import ConfigError, Problem
from src.machine import available_memory

_RESERVE = 2 * 2**30  # bytes left for the run itself
_SAMPLED, _CHUNK = 512, 64  # images that are read for an estimate; images a task
_RAW, _CODESTREAM = 1, 0


class Place(NamedTuple):
    """Where another process of this node finds the memory: as a path below /proc, for as long as the first process lives."""

    path: str
    images: int
    length: int  # bytes of images; the table stands behind them


class Packed:
    """The memory that this process filled. Keep it until every rank has opened it."""

    def __init__(self, place: Place, descriptor: int) -> None:
        self.place, self._descriptor = place, descriptor

    def close(self) -> None:
        """Give up the descriptor; mappings stay."""
        os.close(self._descriptor)


def pack(source: Source, *, threads: int, progress: Callable[[int, int], None]) -> Packed:
    """Read every image of the source into memory.

    Raises:
        ConfigError: if the memory does not suffice.
        DataError: if an image cannot be read.
    """
    require_memory(_estimate(source))
    descriptor = os.memfd_create("imagenet-trainer")
    try:
        ends = np.zeros(len(source), np.int64)
        kinds = np.zeros(len(source), np.uint8)
        position = 0
        chunks = [range(start, min(start + _CHUNK, len(source))) for start in range(0, len(source), _CHUNK)]
        with ThreadPoolExecutor(threads, thread_name_prefix="load") as pool:
            for first in range(0, len(chunks), 8 * threads):  # a bounded number in flight
                turn = chunks[first : first + 8 * threads]
                for chunk, images in zip(turn, pool.map(lambda rows: [source.read(row) for row in rows], turn), strict=True):
                    for row, encoded in zip(chunk, images, strict=True):
                        data = np.ascontiguousarray(encoded.data) if encoded.kind == "raw" else encoded.data
                        position += _write(descriptor, data, position)
                        ends[row], kinds[row] = position, _RAW if encoded.kind == "raw" else _CODESTREAM
                require_memory(0)
                progress(turn[-1].stop, len(source))
        table = position + (-position) % mmap.PAGESIZE
        _write(descriptor, ends, table)
        _write(descriptor, kinds, table + ends.nbytes)
    except BaseException:
        os.close(descriptor)
        raise
    return Packed(Place(f"/proc/{os.getpid()}/fd/{descriptor}", len(source), position), descriptor)


class InMemory:
    """A packed source.

    Args:
        source: what was packed: it keeps classes, labels, sizes and names.
        place: where the memory is.
    """

    def __init__(self, source: Source, place: Place) -> None:
        assert place.images == len(source)
        self._source = source
        self.classes, self.labels, self.sizes = source.classes, source.labels, source.sizes
        with open(place.path, "rb") as file:
            self._memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        table = place.length + (-place.length) % mmap.PAGESIZE
        self._ends: NDArray[np.int64] = np.frombuffer(self._memory, np.int64, place.images, table)
        self._kinds: NDArray[np.uint8] = np.frombuffer(self._memory, np.uint8, place.images, table + self._ends.nbytes)
        self._view = memoryview(self._memory)

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.labels)

    def read(self, index: int) -> Encoded:
        """Return one image, without a copy."""
        start, end = int(self._ends[index - 1]) if index else 0, int(self._ends[index])
        width, height = self.sizes[index].tolist()
        if self._kinds[index] == _RAW:
            pixels = np.frombuffer(self._memory, np.uint8, end - start, start).reshape(height, width, 3)
            return Encoded(pixels, "raw", width, height)
        return Encoded(self._view[start:end], "codestream", width, height)

    def name(self, index: int) -> str:
        """Return the sample's name in the source."""
        return self._source.name(index)


def load_file(path: Path, *, progress: Callable[[int, int], None]) -> Packed:
    """Read a whole file into memory, for what opens it by its path.

    Raises:
        ConfigError: if the memory does not suffice.
    """
    size = path.stat().st_size
    require_memory(size)
    descriptor = os.memfd_create("imagenet-trainer")
    try:
        with open(path, "rb", buffering=0) as file:
            while block := file.read(8 * 2**20):
                position = file.tell() - len(block)
                _write(descriptor, block, position)
                progress(file.tell(), size)
    except BaseException:
        os.close(descriptor)
        raise
    return Packed(Place(f"/proc/{os.getpid()}/fd/{descriptor}", 0, size), descriptor)


def require_memory(needed: int) -> None:
    """Refuse where so many bytes, and what a run needs, are not there.

    Raises:
        ConfigError: with both figures.
    """
    available = available_memory() - _RESERVE
    if needed > available:
        fix = (
            f"the images take about {needed / 2**30:.1f} GiB, but {max(0, available) / 2**30:.1f} GiB of this node's memory can be "
            "used for them. Set data.in_memory=false, or data.subset to less."
        )
        raise ConfigError("the data", [Problem("data.in_memory", True, fix)])


def _estimate(source: Source) -> int:
    ids = np.unique(np.linspace(0, len(source) - 1, _SAMPLED).astype(int)).tolist()
    lengths = [_length(source.read(index)) for index in ids]
    return int(1.05 * len(source) * sum(lengths) / len(ids)) if len(source) > len(ids) else sum(lengths)


def _length(encoded: Encoded) -> int:
    return encoded.data.nbytes if isinstance(encoded.data, np.ndarray) else len(encoded.data)


def _write(descriptor: int, data: object, position: int) -> int:
    view = memoryview(data).cast("B")  # type: ignore[arg-type]
    written = 0
    while written < len(view):
        written += os.pwrite(descriptor, view[written:], position + written)
    return written
