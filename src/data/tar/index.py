"""The index of a split that lies in tars: built by one walk over the headers, cached, and reread in a moment."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.batch import DataError
from src.data.headers import Header, header_at, read_headers
from src.data.index_cache import Choose, IndexCache, Names, Progress, State, beside_files, open_cached
from src.data.opened import OpenedFiles
from src.data.tar import layouts, webdataset
from src.data.tar.devkit import read_devkit, stamp
from src.data.tar.images import Arranged, Images
from src.data.tar.walk import Listing, list_members

_VERSION = 1


class TarIndex:
    """Where each sample of a split lies.

    Attributes:
        classes: names; a label is a position in them.
        labels: int64 (n,).
        files: int32 (n,), which tar.
        starts: int64 (n,), the image's first byte in it.
        lengths: int64 (n,), its bytes.
        sizes: int32 (n, 2), width and height; zero where the header has not been read.
        names: paths within the tar.
        faults: sample index to what is wrong with it.
    """

    def __init__(self, opened: OpenedFiles, state: State) -> None:
        self._opened = opened
        self._classes = state["classes"]
        self.classes: tuple[str, ...] = tuple(json.loads(self._classes.tobytes()))
        self.labels: NDArray[np.int64] = state["labels"]
        self.files: NDArray[np.int32] = state["files"]
        self.starts: NDArray[np.int64] = state["starts"]
        self.lengths: NDArray[np.int64] = state["lengths"]
        self.sizes: NDArray[np.int32] = state["sizes"]
        self.names = Names.from_state(state)
        self.faults: dict[int, str] = {}
        self.changed = False  # nothing of bad images is cached

    def read_headers(self, ids: NDArray[np.int64], *, threads: int, progress: Progress) -> None:
        """Read the headers of these samples, in threads."""
        self.faults |= read_headers(ids, self.sizes, self._header, threads=threads, progress=progress)

    def state(self) -> State:
        """Return what is cached, as arrays."""
        return {
            "classes": self._classes,
            "labels": self.labels,
            "files": self.files,
            "starts": self.starts,
            "lengths": self.lengths,
            "sizes": self.sizes,
            **self.names.state(),
        }

    def _header(self, index: int) -> Header:
        try:
            with self._opened.descriptor(int(self.files[index])) as descriptor:
                return header_at(descriptor, int(self.starts[index]), int(self.lengths[index]))
        except OSError as error:
            return Header(0, 0, f"cannot be read ({error.strerror})")


def open_tar_index(
    opened: OpenedFiles,
    *,
    choose: Choose,
    cache_dir: Path,
    threads: int,
    progress: Progress,
    devkit: Path | None,
    classes: Sequence[str] | None,
) -> tuple[TarIndex, NDArray[np.int64]]:
    """Load or build the index, with the headers of the chosen samples read.

    Args:
        opened: the tars.
        choose: labels (n,) to the ids that will be used.
        cache_dir: for the cache, where it cannot stand beside the first tar.
        threads: for walking and for reading headers.
        progress: called with (done, total).
        devkit: ImageNet's, for its flat validation tar.
        classes: names of the labels in WebDataset shards.

    Returns:
        The index of the whole split, and the chosen ids.

    Raises:
        DataError: a tar, or the devkit, cannot be used; the exact reason, and what to do.
    """
    names = tuple(classes) if classes is not None else None
    key = ["tar", _VERSION, opened.stamps, stamp(devkit) if devkit is not None else None, names]
    return open_cached(
        IndexCache(beside_files(opened.paths, cache_dir), key),
        build=lambda: TarIndex(opened, _Builder(opened, threads).build(devkit, names)),
        restore=lambda state: TarIndex(opened, state),
        choose=choose,
        threads=threads,
        progress=progress,
    )


class _Part(NamedTuple):
    """Bytes that are a tar: a file, or a tar within a tar."""

    file: int
    start: int
    length: int
    name: str


class _Builder:
    def __init__(self, opened: OpenedFiles, threads: int) -> None:
        self._opened, self._threads = opened, threads
        self._images = Images()

    def build(self, devkit: Path | None, classes: tuple[str, ...] | None) -> State:
        parts = [
            _Part(file, 0, size, str(path))
            for file, (path, size) in enumerate(zip(self._opened.paths, self._opened.sizes, strict=True))
        ]
        for part, listing in zip(parts, self._walked(parts), strict=True):
            self._images.add(part.file, listing)
        try:
            return self._state(self._arranged(devkit, classes))
        except DataError as error:
            several = len(self._opened.paths)
            where = str(self._opened.paths[0]) + (f" and {several - 1} more" if several > 1 else "")
            raise DataError(f"{where}: {error}") from error.__cause__

    def _arranged(self, devkit: Path | None, classes: tuple[str, ...] | None) -> Arranged:
        inner = layouts.class_tars(self._images, self._shown)
        if inner is not None:
            return self._class_tars(inner)
        if webdataset.are_shards(self._images):
            return webdataset.by_key(self._images, self._shown, self._small, classes)
        if layouts.is_flat_val(self._images):
            if devkit is None:
                raise DataError(
                    "these are ImageNet's validation images without class folders. Their classes stand in the devkit: set "
                    "data.devkit_path=<ILSVRC2012_devkit_t12.tar.gz, or its folder>."
                )
            return layouts.by_devkit(self._images, self._shown, read_devkit(devkit))
        return layouts.by_folder(self._images, self._shown)

    def _class_tars(self, inner: dict[int, str]) -> Arranged:
        outer, self._images = self._images, Images()
        parts = [
            _Part(
                outer.files[index],
                outer.starts[index],
                outer.lengths[index],
                f"{self._opened.paths[outer.files[index]]}/{outer.names[index]}",
            )
            for index in inner
        ]
        members: list[int] = []
        for number, (index, part, listing) in enumerate(zip(inner, parts, self._walked(parts), strict=True)):
            self._images.add(part.file, listing, prefix=f"{outer.names[index]}/")
            members += [number] * len(listing.names)
        return layouts.by_class_tar(self._images, self._shown, list(inner.values()), members)

    def _walked(self, parts: Sequence[_Part]) -> Iterator[Listing]:
        with ThreadPoolExecutor(self._threads) as pool:
            yield from pool.map(self._walk, parts)

    def _walk(self, part: _Part) -> Listing:
        try:
            with self._opened.descriptor(part.file) as descriptor:
                return list_members(descriptor, part.start, part.start + part.length)
        except DataError as error:
            raise DataError(f"{part.name} {error}") from None
        except OSError as error:
            raise DataError(f"{part.name} cannot be read: {error.strerror}.") from error

    def _shown(self, index: int) -> str:
        return f"{self._opened.paths[self._images.files[index]].name}/{self._images.names[index]}"

    def _small(self, index: int) -> bytes:
        try:
            return self._opened.read(self._images.files[index], self._images.starts[index], self._images.lengths[index])
        except OSError as error:
            raise DataError(f"{self._shown(index)} cannot be read: {error.strerror}.") from error

    def _state(self, arranged: Arranged) -> State:
        order = np.array(arranged.order, np.int64)
        images = self._images
        return {
            "classes": np.frombuffer(json.dumps(arranged.classes).encode(), np.uint8),
            "labels": np.array(arranged.labels, np.int64),
            "files": np.array(images.files, np.int32)[order],
            "starts": np.array(images.starts, np.int64)[order],
            "lengths": np.array(images.lengths, np.int64)[order],
            "sizes": np.zeros((len(order), 2), np.int32),
            **Names.pack(images.names[index] for index in arranged.order).state(),
        }
