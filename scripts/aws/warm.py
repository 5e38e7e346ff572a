"""Read a whole volume once. One that was made from a snapshot loads its blocks from S3 as they are asked for, slowly each one.

EBS user guide, "Initialize Amazon EBS volumes": a first read of every block makes it as fast as any. Many reads at a time, for each
waits tens of milliseconds. Or ask for fast snapshot restore, or `--initialization-rate` of CreateVolume, which cost extra.
"""

import os
import sys
import threading
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.aws.calls import answer, say
from scripts.aws.commands import need_root
from scripts.aws.devices import size_of, wait_for_device
from scripts.aws.errors import EXIT_INTERRUPTED
from scripts.aws.filesystem import volume_id_of

_GIB = 1 << 30
_BLOCK = 1 << 20
_PIECE = 64 << 20  # one thread's piece of work


def warm(options: Namespace) -> int:
    """Read every block, many at a time; interrupted, it says from where to go on."""
    need_root("warm", dry_run=options.dry_run)
    volume_id = volume_id_of(options)
    device = wait_for_device(volume_id, xen_name=options.device_name, at_most=0, dry_run=options.dry_run)
    if options.dry_run:
        sys.stdout.write(f"would read {device} from {options.from_gib} GiB to its end, {options.threads} blocks at a time\n")
        return answer(dry_run=True, volume=volume_id)
    size, begun = size_of(device), time.monotonic()
    start = min(int(options.from_gib * _GIB), size)
    reading = Reading(device, start, size)
    try:
        reading.run(options.threads, every=options.poll_seconds)
    except KeyboardInterrupt:
        say(f"Interrupted. Go on with --from-gib {reading.whole_until / _GIB:.3f}")
        return EXIT_INTERRUPTED
    return answer(status="read", volume=volume_id, bytes=size - start, seconds=round(time.monotonic() - begun, 1))


class Reading:
    """A device being read in pieces by threads. `whole_until`: the byte before which all has been read."""

    def __init__(self, device: Path, start: int, end: int) -> None:
        self.device, self.start, self.end = device, start, end
        self.whole_until = start
        self.done_bytes = 0
        self._done: set[int] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def run(self, threads: int, *, every: float) -> None:
        """Read all, and tell how far it is every so many seconds.

        Raises:
            OSError: a block cannot be read.
        """
        descriptor = os.open(self.device, os.O_RDONLY)
        begun = told = time.monotonic()
        try:
            with ThreadPoolExecutor(threads) as pool:
                try:
                    pieces = range(self.start, self.end, _PIECE)
                    for _ in pool.map(lambda place: self._read(descriptor, place), pieces):
                        now = time.monotonic()
                        if now - told >= every or self.done_bytes == self.end - self.start:
                            told = now
                            self._tell(now - begun)
                except BaseException:
                    self._stopped.set()
                    pool.shutdown(cancel_futures=True)
                    raise
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int, place: int) -> None:
        buffer, end = bytearray(_BLOCK), min(place + _PIECE, self.end)
        for block in range(place, end, _BLOCK):
            if self._stopped.is_set():
                return
            wanted = min(_BLOCK, end - block)
            if os.preadv(descriptor, [memoryview(buffer)[:wanted]], block) != wanted:
                raise OSError(f"{self.device}: short read at byte {block}")
        os.posix_fadvise(descriptor, place, end - place, os.POSIX_FADV_DONTNEED)  # the page cache has better to keep
        with self._lock:
            self._done.add(place)
            self.done_bytes += end - place
            while self.whole_until in self._done:
                self._done.discard(self.whole_until)
                self.whole_until = min(self.whole_until + _PIECE, self.end)

    def _tell(self, seconds: float) -> None:
        whole, rate = self.end - self.start, self.done_bytes / max(seconds, 1e-9)
        left = (whole - self.done_bytes) / max(rate, 1e-9)
        percent = 100 * self.done_bytes / max(whole, 1)
        say(f"{self.device}: {percent:.0f} % of {whole / _GIB:.1f} GiB, {rate / 2**20:.0f} MiB/s, {left / 60:.0f} min left")
