"""What the indexes of all sources share: packed names, the cached file, and the order of work at an opening.

An index stands beside the data, or in a cache folder where the data is read-only. It tells which state of the data it is of, and a
hash of its bytes ends it, so that an old or damaged one is noticed and built anew.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from src.files import write_atomically

_SEAL = hashlib.sha256().digest_size

State = dict[str, NDArray[Any]]
Choose = Callable[[NDArray[np.int64]], NDArray[np.int64]]
Progress = Callable[[int, int], None]


class Names:
    """A million strings as two arrays: quick to store, and of no weight for the garbage collector.

    Args:
        text: all of them, one behind the other, as the file system spells them.
        ends: int64 (n,), where each ends.
    """

    def __init__(self, text: bytes, ends: NDArray[np.int64]) -> None:
        self._text, self._ends = text, ends

    @classmethod
    def pack(cls, names: Iterable[str]) -> "Names":
        """Pack strings. They may hold what os.fsdecode makes of bytes that are no UTF-8."""
        encoded = [os.fsencode(name) for name in names]
        return cls(b"".join(encoded), np.cumsum([len(name) for name in encoded], dtype=np.int64))

    @classmethod
    def from_state(cls, state: State) -> "Names":
        """Rebuild from arrays."""
        return cls(state["text"].tobytes(), state["ends"])

    def state(self) -> State:
        """Return what is cached, as arrays."""
        return {"text": np.frombuffer(self._text, np.uint8), "ends": self._ends}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._ends)

    def __eq__(self, other: object) -> bool:
        """Compare all of them."""
        return isinstance(other, Names) and self._text == other._text and np.array_equal(self._ends, other._ends)

    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, index: int) -> str:
        """Return one."""
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._text[start : int(self._ends[index])])


class Index(Protocol):
    """What an index must have to be cached.

    Attributes:
        labels: int64 (n,).
        sizes: int32 (n, 2), width and height; zero where the header has not been read, or is bad.
        faults: sample index to what is wrong with it. Those that a restored index knows of are not read again.
        changed: whether more is known of bad images than what was cached; for indexes that cache that.
    """

    labels: NDArray[np.int64]
    sizes: NDArray[np.int32]

    @property
    def faults(self) -> dict[int, str]: ...  # noqa: D102
    @property
    def changed(self) -> bool: ...  # noqa: D102

    def read_headers(self, ids: NDArray[np.int64], *, threads: int, progress: Progress) -> None:
        """Fill in the sizes of these samples, and what is wrong with them."""

    def state(self) -> State:
        """Return what is cached, as arrays."""


AnyIndex = TypeVar("AnyIndex", bound=Index)


class IndexCache:
    """The cached index of one data set.

    Args:
        places: where it may stand; the first that can be written is.
        key: of the data's state, of what JSON can hold. A cache with another key is not used.

    Attributes:
        found: where the newest of them stood when it was loaded.
    """

    def __init__(self, places: Sequence[Path], key: Any) -> None:
        self._places = places
        self._key = digest(json.dumps(key)).encode()
        self._edition = 0
        self.found: Path | None = None

    def load(self) -> list[State]:
        """Return what is found, the newest first: nothing that is damaged, foreign, or of another state of the data."""
        states = [(place, state) for place in self._places if (state := self._load(place)) is not None]
        # Data that were made read-only keep an older one beside them. Counted, for clocks differ between machines.
        editions = [int(state.pop("edition", 0)) for _, state in states]
        order = sorted(range(len(states)), key=lambda number: -editions[number])
        if order:
            self._edition, self.found = editions[order[0]], states[order[0]][0]
        return [states[number][1] for number in order]

    def save(self, state: State) -> Path | None:
        """Write to the first place that takes it, and return it. Where none does, the next start builds the index again."""
        for place in self._places:
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                if not place.parent.stat().st_mode & 0o222:  # root could write there all the same, and should not
                    continue
                memory = io.BytesIO()
                arrays: dict[str, Any] = {"key": np.frombuffer(self._key, np.uint8), "edition": self._edition + 1, **state}
                np.savez(memory, **arrays)
                memory.write(hashlib.sha256(memory.getbuffer()).digest())
                write_atomically(place, memory.getbuffer())
                return place
            except OSError:
                continue
        return None

    def _load(self, place: Path) -> State | None:
        try:
            sealed = memoryview(place.read_bytes())
        except OSError:
            return None
        data, seal = sealed[:-_SEAL], sealed[-_SEAL:]
        if hashlib.sha256(data).digest() != seal:
            return None
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            state = {name: stored[name] for name in stored.files}
        return state if state.pop("key").tobytes() == self._key else None


def beside_files(paths: Sequence[Path], cache_dir: Path) -> list[Path]:
    """Return where the index of some files may stand: beside the first, or in the cache folder."""
    several = "" if len(paths) == 1 else f"-{digest(json.dumps([path.name for path in paths]))[:8]}"
    whole = digest(json.dumps([str(path.resolve()) for path in paths]))
    return [paths[0].parent / f".{paths[0].name}{several}.index.npz", cache_dir / f"{whole}.npz"]


def open_cached(
    cache: IndexCache,
    *,
    build: Callable[[], AnyIndex],
    restore: Callable[[State], AnyIndex],
    choose: Choose,
    threads: int,
    progress: Progress,
) -> tuple[AnyIndex, NDArray[np.int64]]:
    """Load or build an index, with the headers of the chosen samples read.

    Args:
        cache: of this index.
        build: lists the data, where no cache does.
        restore: rebuilds an index from its arrays.
        choose: labels (n,) to the ids that will be used.
        threads: for reading headers.
        progress: called with (done, total).

    Returns:
        The index of all the data, and the chosen ids.
    """
    cached = [restore(state) for state in cache.load()]
    # Beside read-only data a poor cache may stand in front of a richer one.
    index = max(cached, key=lambda found: np.count_nonzero(found.sizes), default=None)
    if index is None:
        index = build()
    ids = np.asarray(choose(index.labels), np.int64)
    unread = ids[(index.sizes[ids] == 0).any(axis=1)]
    if index.faults:
        unread = unread[~np.isin(unread, list(index.faults))]
    if len(unread):
        index.read_headers(unread, threads=threads, progress=progress)
    if (len(unread) and (not cached or index.sizes[unread].any())) or index.changed:
        cache.save(index.state())
    return index, ids


def faults_of_chosen(faults: dict[int, str], ids: NDArray[np.int64]) -> dict[int, str]:
    """Turn faults by id into faults by place among the chosen ids."""
    return {place: faults[index] for place, index in enumerate(ids.tolist()) if index in faults} if faults else {}


def numbered(count: int) -> tuple[str, ...]:
    """Name classes that have no names."""
    return tuple(f"class_{label:04d}" for label in range(count))


def digest(text: str) -> str:
    """Return 32 hex digits that tell one text from another."""
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:32]
