"""Copies of the data on a node's own disk: made once, checked, and used again by the next run.

A copy is whole when its name is there: it is written under a temporary name that is locked, read again and compared, given the
original's modification time, and renamed. So a copy whose size and time are the original's is the original.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from io import FileIO
from pathlib import Path
from threading import Event, Lock
from typing import NamedTuple

from src.config import ConfigError, Problem
from src.files import TEMPORARY_PREFIX

_BLOCK = 8 * 2**20
_RESERVE = 64 * 2**20  # bytes left free on the node's disk
Progress = Callable[[int, int], None]


class Copy(NamedTuple):
    """A file and where its copy goes."""

    original: str
    target: str


def folder_of_copies(copy_to: Path, root: Path) -> Path:
    """Return where copies of what lies below `root` go: a readable name, and a hash of the whole path."""
    whole = str(root.resolve())
    return copy_to / f"{root.name}-{hashlib.sha256(os.fsencode(whole)).hexdigest()[:8]}"


def copy_missing(copies: Sequence[Copy], *, threads: int, progress: Progress) -> int:
    """Copy what is not there yet, or no longer the same.

    Args:
        copies: what to copy; originals must exist.
        threads: that copy side by side.
        progress: called with (bytes done, bytes to copy).

    Returns:
        How many files were copied.

    Raises:
        ConfigError: where there is no room, or a copy differs from what was read.
    """
    missing = [(copy, size) for copy in copies if (size := _missing_bytes(copy)) is not None]
    if not missing:
        return 0
    total = sum(size for _, size in missing)
    _require_room(Path(missing[0][0].target).parent, total)
    for parent in {os.path.dirname(copy.target) for copy, _ in missing}:  # noqa: PTH120 (a million of them)
        os.makedirs(parent, exist_ok=True)  # noqa: PTH103
    counter = _Counter(total, progress)
    stop = Event()
    with ThreadPoolExecutor(threads, thread_name_prefix="copy") as pool:
        tasks: set[Future[None]] = set()
        try:
            for copy, _ in missing:  # a million futures at once would be a gigabyte
                if len(tasks) >= 4 * threads:
                    done, tasks = wait(tasks, return_when=FIRST_COMPLETED)
                    for task in done:
                        task.result()
                tasks.add(pool.submit(_copy, copy, counter, stop))
            for task in tasks:
                task.result()
        except BaseException:
            stop.set()
            raise
    return len(missing)


class _Counter:
    """Adds up what many threads copy."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._done, self._total, self._progress, self._lock = 0, total, progress, Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            self._progress(self._done, self._total)


def _missing_bytes(copy: Copy) -> int | None:
    """Return how many bytes there are to copy, or None where the copy is good."""
    original = os.stat(copy.original)
    with contextlib.suppress(OSError):
        target = os.stat(copy.target)
        if (target.st_size, target.st_mtime_ns) == (original.st_size, original.st_mtime_ns):
            return None
    return original.st_size


def _require_room(folder: Path, total: int) -> None:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError("the data", [Problem("data.copy_to", str(folder), f"{existing} cannot be written.")])
    free = shutil.disk_usage(existing).free - _RESERVE
    if total > free:
        fix = (
            f"{total / 2**30:.2f} GiB are to be copied, but {max(0, free) / 2**30:.2f} GiB are free. "
            "Free some space, set data.copy_to to another disk or data.subset to less, or set data.copy_to=null."
        )
        raise ConfigError("the data", [Problem("data.copy_to", str(existing), fix)])


def _copy(copy: Copy, counter: _Counter, stop: Event) -> None:
    folder = Path(copy.target).parent
    temporary = folder / f"{TEMPORARY_PREFIX}{Path(copy.target).name}"
    # The lock ends with its process, so a copy that was killed is begun anew, and one that is under way elsewhere is waited for.
    with open(os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if _missing_bytes(copy) is None:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), temporary.stat()):
                    temporary.unlink()
            return
        try:
            file.truncate(0)
            state = os.stat(copy.original)
            read = _stream(copy.original, file, counter, stop)
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # read again from the disk, not from the cache
            file.seek(0)
            if hashlib.file_digest(file, "sha256").digest() != read:
                fix = f"the copy of {copy.original} reads otherwise than what was written. Is the disk sound? Set another folder."
                raise ConfigError("the data", [Problem("data.copy_to", str(folder), fix)])
            os.utime(file.fileno(), ns=(state.st_atime_ns, state.st_mtime_ns))
            os.replace(temporary, copy.target)
        except OSError as error:
            _unlink(temporary)
            fix = f"{copy.original} could not be copied: {error.strerror}."
            raise ConfigError("the data", [Problem("data.copy_to", str(folder), fix)]) from error
        except BaseException:
            _unlink(temporary)
            raise


def _stream(original: str, target: FileIO, counter: _Counter, stop: Event) -> bytes:
    """Copy block by block, and return the sha256 of what was read."""
    digest = hashlib.sha256()
    with open(original, "rb", buffering=0) as source:
        while block := source.read(_BLOCK):
            if stop.is_set():
                raise InterruptedError("copying was stopped")
            digest.update(block)
            view = memoryview(block)
            while view:
                view = view[target.write(view) :]
            counter.add(len(block))
    return digest.digest()


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
