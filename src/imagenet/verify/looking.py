"""All files, a chunk at a time by several threads. What is found is kept by columns."""

import os
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.data.bad_files import BadFile, BadFiles
from src.data.index_cache import Progress
from src.imagenet.verify.listing import Listing
from src.imagenet.verify.look import LOOK_AT, Look, warnings_heard

_CHUNK = {1: 512, 2: 256, 3: 32}
_COLUMNS = ("kind", "size", "width", "height", "channels", "orientation", "odd_metadata", "crc")


class Looks:
    """What all files are, in the order of the listings, by columns.

    Attributes:
        listings: of the splits, in order.
        columns: name to int64 (n,); the names are those of Look.
        bad: place to why training cannot use it.
        warned: place to what Pillow warned of.
    """

    def __init__(self, listings: Sequence[Listing]) -> None:
        self.listings = listings
        self._raw = {name: array("q") for name in _COLUMNS}
        self.bad: BadFiles = {}
        self.warned: dict[int, str] = {}

    def __len__(self) -> int:
        """Return how many files were looked at."""
        return len(self._raw["kind"])

    def take(self, looks: Sequence[Look]) -> None:
        """Append."""
        for place, look in enumerate(looks, len(self)):
            if look.fault:
                self.bad[place] = BadFile(look.fault, look.stamp)
            if look.warned:
                self.warned[place] = look.warned
        for name, column in self._raw.items():
            column.extend(map(attrgetter(name), looks))

    def column(self, name: str) -> NDArray[np.int64]:
        """Return one column, int64 (n,)."""
        return np.array(self._raw[name], np.int64)

    def paths(self) -> Iterator[str]:
        """Yield every file's path below the data set's folder, in order."""
        for listing in self.listings:
            for folder, name in listing.images():
                yield listing.path(folder, name)

    def names_of(self, places: "NDArray[np.int64] | Sequence[int]") -> list[str]:
        """Return the paths of some, below the data set's folder, in order."""
        wanted = set(np.asarray(places).tolist())
        if not wanted:
            return []
        return [path for place, path in enumerate(self.paths()) if place in wanted]

    def span(self, split: str) -> slice:
        """Return which places are a split's."""
        start = 0
        for listing in self.listings:
            if listing.split == split:
                return slice(start, start + listing.size)
            start += listing.size
        return slice(start, start)


def look_at_all(root: Path, listings: Sequence[Listing], *, level: int, threads: int, progress: Progress) -> Looks:
    """Look at every image of all splits.

    Args:
        root: the data set's folder.
        listings: of its splits.
        level: 1 to 3.
        threads: at work at once.
        progress: called with (done, total).
    """
    looks = Looks(listings)
    total = sum(listing.size for listing in listings)
    with warnings_heard(), ThreadPoolExecutor(threads) as pool:
        jobs = _jobs(str(root), listings, _CHUNK[level], level)
        for found in _in_order(pool, jobs, ahead=4 * threads):
            looks.take(found)
            progress(len(looks), total)
    return looks


Job = tuple[str, list[str], int]


def _jobs(root: str, listings: Sequence[Listing], chunk: int, level: int) -> Iterator[Job]:
    for listing in listings:
        for folder in listing.folders:
            names = folder.names()
            place = os.path.join(root, listing.split, folder.name)
            for start in range(0, len(names), chunk):
                yield place, names[start : start + chunk], level


def _in_order(pool: Executor, jobs: Iterator[Job], ahead: int) -> Iterator[list[Look]]:
    """Do jobs, so many ahead of what is taken: a million of them at once would be a burden."""
    waiting: deque[Future[list[Look]]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(_do, job))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _do(job: Job) -> list[Look]:
    place, names, level = job
    look = LOOK_AT[level]
    return [look(os.path.join(place, name)) for name in names]
