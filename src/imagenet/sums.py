"""The sums of archives, computed while they are extracted, from one reading of the disk.

One thread reads each archive from its first byte to its last and feeds md5. A unit is extracted when its bytes have been read, so
that it finds them in the system's cache; the reader never runs further ahead than the cache is likely to keep.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from src.imagenet.pieces import Archive, Unit
from src.machine import available_memory

_BLOCK = 2**22  # bytes
_MOST_AHEAD = 2**32  # bytes
_PATIENCE = 1.0  # seconds between looks at what changed


class ReadAhead:
    """Reads archives in a thread of its own.

    Args:
        archives: to be read, one after the other.
        units: all units of the preparation, in order.
        owners: a unit's name to the path of its archive.
    """

    def __init__(self, archives: Sequence[Archive], units: Sequence[Unit], owners: Mapping[str, Path]) -> None:
        self.found: dict[Path, str] = {}  # md5 of those that are read
        self.error: OSError | None = None
        self._archives = archives
        self._spans = _spans(archives, units, owners)
        self._order = sorted(self._spans, key=lambda name: self._spans[name])
        self._done: dict[str, float] = {}  # unit's name to the share of it that is extracted
        self._first = 0  # place in order of the first unit that is not
        self._read, self._stopped = 0, False
        self._ahead = min(_MOST_AHEAD, available_memory() // 4)
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="md5", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def wait_for(self, unit: str) -> None:
        """Wait until the unit's bytes have been read, or as many of them as are read ahead."""
        if unit not in self._spans:
            return
        start, end = self._spans[unit]
        wanted = min(end, start + self._ahead // 2)
        with self._change:
            while self._read < wanted and self._thread.is_alive() and not self._stopped:
                self._change.wait(_PATIENCE)

    def sorted(self, units: Sequence[Unit]) -> list[Unit]:
        """Return the units in the order in which they are read: first those that are not waited for."""
        return sorted(units, key=lambda unit: self._spans.get(unit.name, (-1, -1)))

    def tell(self, unit: str, share: float) -> None:
        """Note how much of a unit is extracted: 0 to 1."""
        if unit in self._spans:
            with self._change:
                self._done[unit] = share
                self._change.notify_all()

    def finish(self, progress: Callable[[int, int], None]) -> None:
        """Wait for the last byte; progress is called with (bytes read, bytes in all)."""
        total = sum(os.stat(archive.path).st_size for archive in self._archives)
        while self._thread.is_alive():
            self._thread.join(_PATIENCE)
            progress(self._read, total)
        progress(self._read, total)

    def stop(self) -> None:
        """Leave it."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            for archive in self._archives:
                md5 = hashlib.md5(usedforsecurity=False)
                with open(archive.path, "rb", buffering=0) as file:
                    while block := file.read(_BLOCK):
                        md5.update(block)
                        if not self._advance(len(block)):
                            return
                self.found[archive.path] = md5.hexdigest()
        except OSError as error:
            self.error = error
        finally:
            with self._change:
                self._change.notify_all()

    def _advance(self, count: int) -> bool:
        with self._change:
            self._read += count
            self._change.notify_all()
            while self._read > self._limit() and not self._stopped:
                self._change.wait(_PATIENCE)
            return not self._stopped

    def _limit(self) -> float:
        """Return how far reading may go: so far ahead of the first unit that is not wholly extracted."""
        while self._first < len(self._order) and self._done.get(self._order[self._first], 0.0) >= 1.0:
            self._first += 1
        if self._first == len(self._order):
            return float("inf")
        name = self._order[self._first]
        start, end = self._spans[name]
        return start + (end - start) * self._done.get(name, 0.0) + self._ahead


def _spans(archives: Sequence[Archive], units: Sequence[Unit], owners: Mapping[str, Path]) -> dict[str, tuple[int, int]]:
    """Estimate where each unit lies among the bytes of all archives, one behind the other: by its share of its archive."""
    spans: dict[str, tuple[int, int]] = {}
    base = 0
    for archive in archives:
        length = os.stat(archive.path).st_size
        own = [unit for unit in units if owners.get(unit.name) == archive.path]
        total = sum(unit.bytes for unit in own) or 1
        at = 0
        for unit in own:
            spans[unit.name] = (base + length * at // total, base + length * (at + unit.bytes) // total)
            at += unit.bytes
        base += length
    return spans
