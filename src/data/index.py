"""The index of an ImageFolder: names, labels, sizes and bad files, built once, cached, and reread in a moment.

Listing comes first; headers are read only of the samples that are asked for. The cache stands beside the data, or in a cache folder
where the data is read-only. Its key is the root, the class names and the class folders' modification times. A hash of its bytes
ends it, so that a damaged cache is noticed and built anew.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.data.headers import Header, read_header
from src.files import write_atomically

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif")
_VERSION = 1
_CHUNK = 512
_SEAL = hashlib.sha256().digest_size


class FolderIndex:
    """What is known of root/<class>/**/<image>.

    Attributes:
        classes: sorted folder names; a label is a position in them.
        labels: int64 (n,).
        sizes: int32 (n, 2), width and height; zero where the header has not been read.
        faults: sample index to what is wrong with its file. Never cached: a bad file may have been replaced in place.
    """

    def __init__(self, root: Path, classes: tuple[str, ...], names: list[str], labels: NDArray[np.int64]) -> None:
        self.root, self.classes, self.labels = root, classes, labels
        encoded = [os.fsencode(name) for name in names]
        self._text = b"".join(encoded)
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
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
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._text[start : int(self._ends[index])])

    def unread(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of the ids whose header is not known."""
        unknown: NDArray[np.int64] = ids[(self.sizes[ids] == 0).any(axis=1)]
        return unknown

    def read_headers(self, ids: NDArray[np.int64], *, threads: int, progress: Callable[[int, int], None]) -> None:
        """Read the headers of these samples, in threads."""
        chunks = [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)]
        done = 0
        with ThreadPoolExecutor(threads) as pool:
            for chunk, headers in zip(chunks, pool.map(self._headers_of, chunks), strict=True):
                for index, header in zip(chunk.tolist(), headers, strict=True):
                    self.sizes[index] = header.width, header.height
                    if header.fault:
                        self.faults[index] = header.fault
                done += len(chunk)
                progress(done, len(ids))

    def _headers_of(self, ids: NDArray[np.int64]) -> list[Header]:
        return [read_header(self.path(index)) for index in ids.tolist()]

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what is cached, as arrays."""
        return {
            "text": np.frombuffer(self._text, np.uint8),
            "ends": self._ends,
            "labels": self.labels,
            "sizes": self.sizes,
        }

    @classmethod
    def from_state(cls, root: Path, classes: tuple[str, ...], state: dict[str, NDArray[Any]]) -> "FolderIndex":
        """Rebuild from arrays."""
        index = cls(root, classes, [], state["labels"])
        index._text, index._ends = state["text"].tobytes(), state["ends"]
        index.sizes = state["sizes"]
        return index


def open_index(
    root: Path,
    *,
    choose: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    cache_dir: Path,
    threads: int,
    progress: Callable[[int, int], None],
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
    places = [root.parent / f".{root.name}.index.npz", cache_dir / f"{_digest(str(root.resolve()))}.npz"]
    cached = [found for place in places if (found := _load(place, root, key)) is not None]
    # Beside read-only data a poor cache may stand in front of a richer one.
    index = max(cached, key=lambda found: np.count_nonzero(found.sizes), default=None)
    if index is None:
        index = _listed(root, tuple(name for name, _ in key), threads)
    ids = choose(index.labels)
    unread = index.unread(ids)
    if len(unread):
        index.read_headers(unread, threads=threads, progress=progress)
        if not cached or index.sizes[unread].any():
            _save(places, index, key)
    return index, ids


def _key(root: Path) -> list[tuple[str, int]]:
    with os.scandir(root) as entries:
        folders = [entry for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
        return sorted((entry.name, entry.stat().st_mtime_ns) for entry in folders)


def _listed(root: Path, classes: tuple[str, ...], threads: int) -> FolderIndex:
    with ThreadPoolExecutor(threads) as pool:
        listings = list(pool.map(lambda name: sorted(_images_below(root, name)), classes))
    names = [name for listing in listings for name in listing]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(listing) for listing in listings])
    return FolderIndex(root, classes, names, labels)


def _images_below(root: Path, folder: str) -> Iterable[str]:
    for parent, folders, files in os.walk(os.path.join(root, folder), followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(parent, root)
        yield from (os.path.join(below, name) for name in files if name.lower().endswith(EXTENSIONS) and name[0] != ".")


def _load(place: Path, root: Path, key: list[tuple[str, int]]) -> FolderIndex | None:
    """Return the cached index, or None where there is none, it is of another state of the folder, or it is damaged."""
    try:
        sealed = memoryview(place.read_bytes())
    except OSError:
        return None
    data, seal = sealed[:-_SEAL], sealed[-_SEAL:]
    if hashlib.sha256(data).digest() != seal:
        return None
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        state = {name: stored[name] for name in stored.files}
    if state.pop("key").tobytes() != _key_bytes(root, key):
        return None
    return FolderIndex.from_state(root, tuple(name for name, _ in key), state)


def _save(places: list[Path], index: FolderIndex, key: list[tuple[str, int]]) -> None:
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.parent.stat().st_mode & 0o222:  # root could write there all the same, and should not
                continue
            memory = io.BytesIO()
            arrays: dict[str, Any] = {"key": np.frombuffer(_key_bytes(index.root, key), np.uint8), **index.state()}
            np.savez(memory, **arrays)
            memory.write(hashlib.sha256(memory.getbuffer()).digest())
            write_atomically(place, memory.getbuffer())
            return
        except OSError:
            continue


def _key_bytes(root: Path, key: list[tuple[str, int]]) -> bytes:
    return _digest(json.dumps([_VERSION, str(root.resolve()), key])).encode()


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:32]
