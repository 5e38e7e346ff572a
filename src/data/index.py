"""The index of an ImageFolder: names, labels, sizes and bad files, built once, cached, and reread in a moment.

Listing comes first; headers are read only of the samples that are asked for. The cache's key is the root, the class names and the
class folders' modification times.
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.data.headers import read_header, read_headers
from src.data.index_cache import Choose, IndexCache, Names, Progress, State, digest, open_cached

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif")
_VERSION = 1


class FolderIndex:
    """What is known of root/<class>/**/<image>.

    Attributes:
        classes: sorted folder names; a label is a position in them.
        labels: int64 (n,).
        sizes: int32 (n, 2), width and height; zero where the header has not been read.
        faults: sample index to what is wrong with its file. Never cached: a bad file may have been replaced in place.
    """

    def __init__(self, root: Path, classes: tuple[str, ...], names: Names, labels: NDArray[np.int64]) -> None:
        self.root, self.classes, self.labels, self._names = root, classes, labels, names
        self.sizes = np.zeros((len(labels), 2), np.int32)
        self.faults: dict[int, str] = {}

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
        self.faults |= read_headers(
            ids, self.sizes, lambda index: read_header(self.path(index)), threads=threads, progress=progress
        )

    def state(self) -> State:
        """Return what is cached, as arrays."""
        return {**self._names.state(), "labels": self.labels, "sizes": self.sizes}

    @classmethod
    def from_state(cls, root: Path, classes: tuple[str, ...], state: State) -> "FolderIndex":
        """Rebuild from arrays."""
        index = cls(root, classes, Names.from_state(state), state["labels"])
        index.sizes = state["sizes"]
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
    key = _key(root)
    classes = tuple(name for name, _ in key)
    where = str(root.resolve())
    cache = IndexCache([root.parent / f".{root.name}.index.npz", cache_dir / f"{digest(where)}.npz"], [_VERSION, where, key])
    return open_cached(
        cache,
        build=lambda: _listed(root, classes, threads),
        restore=lambda state: FolderIndex.from_state(root, classes, state),
        choose=choose,
        threads=threads,
        progress=progress,
    )


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
