"""The index of an ImageFolder: names, labels, sizes and bad files, built once, cached, and reread in a moment.

Listing comes first; headers are read only of the samples that are asked for. The cache's key is the root, the class names and the
class folders' modification times. Bad files are cached with stamps of their own: one that was replaced is looked at again, one that
was not is known at once. Verification, which decodes every image, adds what only that shows.
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.data.bad_files import BadFile, BadFiles, bad_from, look_whole, stamp_of, state_of
from src.data.headers import read_header, read_headers
from src.data.index_cache import Choose, IndexCache, Names, Progress, State, digest, open_cached

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif")
_VERSION = 2


class FolderIndex:
    """What is known of root/<class>/**/<image>.

    Attributes:
        classes: sorted folder names; a label is a position in them.
        labels: int64 (n,).
        sizes: int32 (n, 2), width and height; zero where the header has not been read.
        bad: sample index to what is wrong with its file, and of which file that was found.
        changed: whether more is known of bad files than what was cached.
    """

    def __init__(self, root: Path, classes: tuple[str, ...], names: Names, labels: NDArray[np.int64]) -> None:
        self.root, self.classes, self.labels, self._names = root, classes, labels, names
        self.sizes = np.zeros((len(labels), 2), np.int32)
        self.bad: BadFiles = {}
        self.changed = False

    @property
    def faults(self) -> dict[int, str]:
        """Return sample index to what is wrong with its file."""
        return {index: bad.reason for index, bad in self.bad.items()}

    @property
    def names(self) -> Names:
        """Return all files' paths below the root."""
        return self._names

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def path(self, index: int) -> str:
        """Return one file's path."""
        return os.path.join(self.root, self.relative(index))

    def relative(self, index: int) -> str:
        """Return one file's path below the root, `<class>/<file>`."""
        return self._names[index]

    def read_headers(self, ids: NDArray[np.int64], *, threads: int, progress: Progress) -> None:
        """Read the headers of these samples, in threads."""
        found = read_headers(ids, self.sizes, lambda index: read_header(self.path(index)), threads=threads, progress=progress)
        self._look_whole(found)

    def look_again(self) -> None:
        """Look at those bad files that are not what they were."""
        self._look_whole([index for index, bad in self.bad.items() if stamp_of(self.path(index)) != bad.stamp])

    def learn(self, sizes: NDArray[np.int32], bad: BadFiles) -> None:
        """Take over what somebody else found who looked at all files.

        Args:
            sizes: int32 (n, 2).
            bad: all that are.
        """
        self.changed = self.changed or bad != self.bad or not np.array_equal(sizes, self.sizes)
        self.sizes, self.bad = sizes, bad

    def _look_whole(self, ids: Iterable[int]) -> None:
        for index in ids:
            header, stamp = look_whole(self.path(index))
            self.sizes[index] = header.width, header.height
            self.bad.pop(index, None)
            if header.fault:
                self.bad[index] = BadFile(header.fault, stamp)
            self.changed = True

    def state(self) -> State:
        """Return what is cached, as arrays."""
        return {**self._names.state(), "labels": self.labels, "sizes": self.sizes, **state_of(self.bad, len(self))}

    @classmethod
    def from_state(cls, root: Path, classes: tuple[str, ...], state: State) -> "FolderIndex":
        """Rebuild from arrays."""
        index = cls(root, classes, Names.from_state(state), state["labels"])
        index.sizes = state["sizes"]
        index.bad = bad_from(state, len(index))
        index.look_again()
        return index


def open_index(
    root: Path, *, choose: Choose, cache_dir: Path, threads: int, progress: Progress
) -> tuple[FolderIndex, NDArray[np.int64]]:
    """Load or build the index, with the headers of the chosen samples read.

    Args:
        root: holds one folder a class.
        choose: labels (n,) to the ids that will be used.
        cache_dir: for the cache, where it cannot stand beside the data.
        threads: for reading headers.
        progress: called with (done, total).

    Returns:
        The index of the whole folder, and the chosen ids.
    """
    cache, classes = _cache_of(root, cache_dir)
    return open_cached(
        cache,
        build=lambda: _listed(root, classes, threads),
        restore=lambda state: FolderIndex.from_state(root, classes, state),
        choose=choose,
        threads=threads,
        progress=progress,
    )


def teach_index(
    root: Path, names: Names, sizes: NDArray[np.int32], bad: BadFiles, *, keep_bad: bool, cache_dir: Path, threads: int
) -> tuple[FolderIndex, Path | None] | None:
    """Tell the index of a folder what was found of all its files.

    Args:
        root: holds one folder a class.
        names: of all files that were looked at, "<class>/<file>", as the index orders them.
        sizes: int32 (n, 2), width and height; zero where a file is bad.
        bad: which files are.
        keep_bad: whether files that the index knows as bad, and that are the same, stay bad: less than their pixels was looked at.
        cache_dir: see open_index.
        threads: for listing.

    Returns:
        The index, and where it stands now, None if no place takes it; nothing at all where the folder holds other files by now.
    """
    cache, classes = _cache_of(root, cache_dir)
    index, _ = open_cached(
        cache,
        build=lambda: _listed(root, classes, threads),
        restore=lambda state: FolderIndex.from_state(root, classes, state),
        choose=lambda labels: np.arange(0),
        threads=threads,
        progress=lambda done, total: None,
    )
    if index.names != names:
        return None
    index.learn(sizes, {**(index.bad if keep_bad else {}), **bad})
    return index, cache.save(index.state()) if index.changed else cache.found


def _cache_of(root: Path, cache_dir: Path) -> tuple[IndexCache, tuple[str, ...]]:
    key = _key(root)
    where = str(root.resolve())
    places = [root.parent / f".{root.name}.index.npz", cache_dir / f"{digest(where)}.npz"]
    return IndexCache(places, [_VERSION, where, key]), tuple(name for name, _ in key)


def _key(root: Path) -> list[tuple[str, int]]:
    with os.scandir(root) as entries:
        folders = [entry for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
        return sorted((entry.name, entry.stat().st_mtime_ns) for entry in folders)


def _listed(root: Path, classes: tuple[str, ...], threads: int) -> FolderIndex:
    with ThreadPoolExecutor(threads) as pool:
        listings = list(pool.map(lambda name: sorted(_images_below(root, name)), classes))
    names = [name for listing in listings for name in listing]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(listing) for listing in listings])
    return FolderIndex(root, classes, Names.pack(names), labels)


def _images_below(root: Path, folder: str) -> Iterable[str]:
    for parent, folders, files in os.walk(os.path.join(root, folder), followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(parent, root)
        yield from (os.path.join(below, name) for name in files if name.lower().endswith(EXTENSIONS) and name[0] != ".")
