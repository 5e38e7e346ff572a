"""What a download writes down beside its files, in <folder>/.fetch: which files are there, and which parts of unfinished ones."""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from loguru import logger

from src.config import ConfigError, Problem
from src.files import write_atomically
from src.imagenet.fetch.remote import STAGE, Remote
from src.imagenet.space import nearest_folder

NOTES = ".fetch"


@contextlib.contextmanager
def notes_in(folder: Path) -> Iterator[Path]:
    """Make the folder and its notes' folder, and hold its lock: a second download into the same folder is refused.

    Raises:
        ConfigError: it cannot be made, or another process downloads into it.
    """
    notes = folder / NOTES
    try:
        notes.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(notes / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        fix = f"cannot be written ({error.strerror}). Name another folder to download into with source=<folder>."
        raise ConfigError(STAGE, [Problem("source", str(folder), fix)]) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip()
            fix = f"process {holder or 'unknown'} is downloading into it. Wait for it, or end it, and run this again."
            raise ConfigError(STAGE, [Problem("source", str(folder), fix)]) from None
        except OSError as error:  # some network file systems have no locks: then two at once are the user's care
            logger.warning(f"{notes} cannot be locked ({error.strerror}): do not start this twice at the same time")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield notes
    finally:
        os.close(descriptor)


class Receipts:
    """Which finished files are what they should be, so that the next start reads and asks for nothing.

    A file counts as long as its size and time of change are those noted. Kept as JSON lines; a torn last one is ignored.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / NOTES / "receipts.jsonl"
        self._known: dict[str, tuple[int, int, str]] = {}
        for line in _lines(self._path):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                self._known[entry["name"]] = (int(entry["bytes"]), int(entry["mtime_ns"]), str(entry["mark"]))

    def holds(self, name: str, size: int, mark: str) -> bool:
        """Return whether the file is there, whole, with this content."""
        state = _state(self._folder / name)
        return state is not None and state[0] == size and self._known.get(name) == (*state, mark)

    def knows(self, name: str, mark: str) -> bool:
        """Return whether the file is there, with this content, whatever size that has."""
        state = _state(self._folder / name)
        return state is not None and self._known.get(name) == (*state, mark)

    def add(self, name: str, mark: str) -> None:
        """Note that a file is there, whole. Its bytes must be on the disk by now."""
        state = _state(self._folder / name)
        assert state is not None, name
        self._known[name] = (*state, mark)
        entry = {"name": name, "bytes": state[0], "mtime_ns": state[1], "mark": mark}
        append_line(self._path, json.dumps(entry))

    def finish(self, what: str, names: list[str]) -> None:
        """Note that all of `what` is there: these files."""
        write_atomically(self._path.with_name("finished.json"), json.dumps({"what": what, "names": names}).encode())

    def finished(self, what: str) -> bool:
        """Return whether all of `what` was downloaded by an earlier start, and stands there unchanged."""
        try:
            entry = json.loads(self._path.with_name("finished.json").read_bytes())
            if entry["what"] != what:
                return False
            return all(name in self._known and _state(self._folder / name) == self._known[name][:2] for name in entry["names"])
        except (OSError, ValueError, KeyError, TypeError):
            return False


class PartNotes:
    """Which parts of one unfinished file are there. Line 0 says of what; then a line a part, "<number> <md5>"."""

    def __init__(self, folder: Path, remote: Remote) -> None:
        key = hashlib.sha256(remote.name.encode()).hexdigest()[:32]
        self.path = folder / NOTES / f"{key}.part"
        self._note = folder / NOTES / f"{key}.note"
        self._head = json.dumps([remote.name, remote.bytes, remote.mark, remote.part_bytes])
        self._single = remote.bytes <= remote.part_bytes  # nothing to note of: of such there may be a million
        self.parts: dict[int, str] = {}
        lines = [] if self._single else list(_lines(self._note))
        if lines and self.path.exists() and lines[0] == self._head:
            for line in lines[1:]:
                number, _, digest = line.partition(" ")
                if number.isdigit() and len(digest) == 32:
                    self.parts[int(number)] = digest

    def begin(self) -> int:
        """Open the unfinished file for writing, emptied where nothing of it can be kept. Returns the descriptor."""
        fresh = not self.parts
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if fresh else 0), 0o666)
        if fresh and not self._single:
            self._note.unlink(missing_ok=True)
            append_line(self._note, self._head)
        return descriptor

    def add(self, number: int, digest: str) -> None:
        """Note that a part is there. Its bytes must be on the disk by now."""
        if not self._single:
            append_line(self._note, f"{number} {digest}")
        self.parts[number] = digest

    def discard(self) -> None:
        """Forget the file, and delete what there is of it."""
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def publish(self, final: Path) -> None:
        """Give the finished file its name."""
        final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.path, final)
        self._note.unlink(missing_ok=True)


def append_line(path: Path, text: str) -> None:
    """Append a line and bring it to the disk. What a crash tore is closed first, so that it spoils no other line."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, (b"\n" if torn else b"") + text.encode() + b"\n")
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def check_space(folder: Path, needed: int) -> None:
    """Refuse a download that does not fit.

    Raises:
        ConfigError: says how much is needed, and how much there is.
    """
    state = os.statvfs(nearest_folder(folder))
    free = state.f_bavail * state.f_frsize
    if needed > free:
        fix = (
            f"{needed:,} bytes ({needed / 1e9:,.1f} GB) are to be downloaded, and {free:,} ({free / 1e9:,.1f} GB) are free there. "
            "Free some, or name a folder on another disk with source=<folder>."
        )
        raise ConfigError(STAGE, [Problem("source", str(folder), fix)])


def _state(path: Path) -> tuple[int, int] | None:
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.endswith("\n"):
                    yield line[:-1]
    except OSError:
        return
