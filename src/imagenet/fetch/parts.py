"""Download files in parts, several at a time: each part is noted when it is on the disk, so that a killed download continues.

Unfinished files stand below .fetch; a file gets its own name when all of it is there and its sum is right.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from loguru import logger

from src.config import ConfigError, Problem
from src.imagenet.fetch.notes import PartNotes, Receipts, check_space
from src.imagenet.fetch.remote import AGAIN, STAGE, UNDER_WAY, Changed, Offer, Passing, Patience, Remote, md5
from src.imagenet.fetch.sums import has_sum, is_right
from src.imagenet.space import sync_file_system

_TELL_SECONDS = 0.5
_LEAVE_SECONDS = 5.0  # for threads to end that wait for a server


def download(
    offer: Offer, folder: Path, *, threads: int, progress: Callable[[int, int], None], patience: Patience | None = None
) -> None:
    """Download all files of the offer that are not there yet.

    Args:
        offer: what there is.
        folder: to download into; its notes' folder exists and is locked.
        threads: how many requests at a time.
        progress: called with (bytes there, bytes in all).
        patience: with faults of the network; None: UNDER_WAY.

    Raises:
        ConfigError: no space, a fault that does not pass, a file that changed or is damaged.
    """
    receipts = Receipts(folder)
    there = missing = 0
    for remote in offer.each():
        if is_there(remote, folder, receipts):
            there += remote.bytes
        else:
            missing += remote.bytes - _bytes_of(PartNotes(folder, remote).parts, remote)
    check_space(folder, missing)
    work = _Work(offer, folder, receipts, patience or UNDER_WAY)
    try:
        work.run(threads, progress)
    except OSError as error:
        raise ConfigError(STAGE, [Problem("source", str(folder), f"cannot be written ({error.strerror}). {AGAIN}")]) from error
    if work.damaged:
        problems = [Problem(str(folder / name), None, f"arrived damaged: its sum is wrong. {AGAIN}") for name in work.damaged[:5]]
        raise ConfigError(STAGE, problems)
    sync_file_system(folder)


def is_there(remote: Remote, folder: Path, receipts: Receipts) -> bool:
    """Return whether the file is there, with this content: by a receipt, the service's time, or where both tell nothing its sum."""
    if receipts.holds(remote.name, remote.bytes, remote.mark):
        return True
    path = folder / remote.name
    try:
        state = os.stat(path)
    except OSError:
        return False
    if state.st_size != remote.bytes:
        return False
    if remote.modified is not None and int(state.st_mtime) == remote.modified:
        return True
    if remote.sum == "none" or not has_sum(path, remote):
        return False
    _note_finished(remote, path, receipts)
    return True


def _note_finished(remote: Remote, path: Path, receipts: Receipts) -> None:
    if remote.modified is not None:
        os.utime(path, (remote.modified, remote.modified))
    else:
        receipts.add(remote.name, remote.mark)


class _File:
    """One file under way."""

    def __init__(self, remote: Remote, folder: Path) -> None:
        self.remote, self.notes, self.lock = remote, PartNotes(folder, remote), threading.Lock()
        self.noted = _bytes_of(self.notes.parts, remote)
        self.missing = set(range(-(-remote.bytes // remote.part_bytes))) - self.notes.parts.keys()
        self.descriptor = self.notes.begin()


class _Work:
    """What the threads share."""

    def __init__(self, offer: Offer, folder: Path, receipts: Receipts, patience: Patience) -> None:
        self._offer, self._folder, self._receipts, self._patience = offer, folder, receipts, patience
        self._lock, self._walking, self._stop = threading.Lock(), threading.Lock(), threading.Event()
        self._tasks = self._walk()
        self._done = 0
        self._error: BaseException | None = None
        self._open: set[int] = set()
        self.damaged: list[str] = []

    def run(self, threads: int, progress: Callable[[int, int], None]) -> None:
        """Let threads fetch what is missing; tell the progress from this one.

        Raises:
            ConfigError, OSError: what the first thread met that could not go on.
        """
        workers = [threading.Thread(target=self._labour, name=f"download-{index}", daemon=True) for index in range(threads)]
        for worker in workers:
            worker.start()
        try:
            for worker in workers:
                while worker.is_alive():
                    worker.join(_TELL_SECONDS)
                    progress(self._done, self._offer.bytes)
        finally:
            self._stop.set()
            for worker in workers:
                worker.join(_LEAVE_SECONDS)
            if not any(worker.is_alive() for worker in workers):  # one that waits for a server may write yet
                for descriptor in self._open:
                    os.close(descriptor)
        if self._error is not None:
            raise self._error
        progress(self._done, self._offer.bytes)

    def _labour(self) -> None:
        try:
            while not self._stop.is_set():
                with self._walking:
                    task = next(self._tasks, None)
                if task is None:
                    return
                self._fetch(*task)
        except BaseException as error:  # noqa: BLE001 (told to the thread that waits for this one)
            with self._lock:
                self._error = self._error or error
            self._stop.set()

    def _walk(self) -> Iterator[tuple[_File, int]]:
        """Yield every missing part. One thread at a time is in here."""
        for remote in self._offer.each():
            if is_there(remote, self._folder, self._receipts):
                self._count(remote.bytes)
                continue
            file = _File(remote, self._folder)
            self._open.add(file.descriptor)
            self._count(file.noted)
            numbers = sorted(file.missing)
            if not numbers:
                self._finish(file)
            for number in numbers:
                yield file, number

    def _fetch(self, file: _File, number: int) -> None:
        remote = file.remote
        at = number * remote.part_bytes
        stop = min(at + remote.part_bytes, remote.bytes)
        digest, failed = md5(), 0
        while at < stop:
            try:
                for chunk in remote.read(at, stop):
                    if self._stop.is_set():
                        return
                    piece = memoryview(chunk)[: stop - at]
                    _write(file.descriptor, piece, at)
                    digest.update(piece)
                    at, failed = at + len(piece), 0
                    self._count(len(piece))
                if at < stop:
                    raise Passing("the connection ended too early")
            except Passing as fault:
                failed += 1
                self._bear(fault, failed, remote.name)
            except Changed as change:
                file.notes.discard()
                fix = f"{change}: what was downloaded of it is thrown away. Run the same command again."
                raise ConfigError(STAGE, [Problem(remote.name, None, fix)]) from None
        with file.lock:
            if remote.bytes > remote.part_bytes:
                os.fdatasync(file.descriptor)
            file.notes.add(number, digest.hexdigest())
            file.missing.discard(number)
            last = not file.missing
        if last:
            self._finish(file)

    def _bear(self, fault: Passing, failed: int, name: str) -> None:
        """Wait before the next attempt.

        Raises:
            ConfigError: that was the last one.
        """
        if failed >= self._patience.tries:
            raise ConfigError(STAGE, [Problem(name, None, f"{fault}, {failed} times in a row. {AGAIN}")])
        pause = self._patience.pause(failed)
        logger.warning(f"{name}: {fault}. Attempt {failed + 1} of {self._patience.tries} in {pause:g} s")
        self._stop.wait(pause)

    def _finish(self, file: _File) -> None:
        remote, notes = file.remote, file.notes
        if not is_right(notes.path, remote, notes.parts):
            notes.discard()
            self._count(-remote.bytes)
            with self._lock:
                self.damaged.append(remote.name)
        elif remote.modified is not None:
            os.utime(file.descriptor, (remote.modified, remote.modified))
            notes.publish(self._folder / remote.name)
        else:
            os.fsync(file.descriptor)
            notes.publish(self._folder / remote.name)
            with self._lock:
                self._receipts.add(remote.name, remote.mark)
        with self._lock:
            self._open.discard(file.descriptor)
        os.close(file.descriptor)

    def _count(self, size: int) -> None:
        with self._lock:
            self._done += size


def _bytes_of(numbers: Iterable[int], remote: Remote) -> int:
    return sum(min(remote.part_bytes, remote.bytes - number * remote.part_bytes) for number in numbers)


def _write(descriptor: int, data: memoryview, at: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, at)
        data, at = data[written:], at + written
