"""What a preparation has done so far, in `<target>/.prepare/journal.jsonl`: a line for each thing that lasts on the disk.

A line is written only after what it tells of has been synced, and is synced itself. A last line that was torn by a kill is cut off;
what it told of is done again.
"""

import contextlib
import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from loguru import logger

from src.files import sync_folder
from src.imagenet.manifest import FOLDER
from src.imagenet.writing import make_folder

_NAME, _LOCK = "journal.jsonl", "lock"
_VERSION = 1
_NO_LOCKS = "cannot be locked ({}): do not start this twice at the same time"


class Progressed(NamedTuple):
    """How far a unit is: its first `pieces` pieces are written, and told of in the first `rows` bytes of its rows' file."""

    pieces: int
    rows: int
    done: bool


class State:
    """What the journal's lines tell.

    Attributes:
        start: of the preparation: what is prepared; None where there is no journal.
        units: how far each is.
        sums: path of an archive to its md5, that was found right.
        stages: those that are finished, with what their line tells.
    """

    def __init__(self) -> None:
        self.start: dict[str, Any] | None = None
        self.units: dict[str, Progressed] = {}
        self.sums: dict[str, str] = {}
        self.stages: dict[str, dict[str, Any]] = {}

    def take(self, line: dict[str, Any]) -> None:
        """Take one line.

        Raises:
            LookupError, TypeError: it is none of ours.
        """
        match line.pop("what"):
            case "start":
                self.start = line
            case "unit":
                self.units[line["name"]] = Progressed(int(line["pieces"]), int(line["rows"]), bool(line["done"]))
            case "sum":
                self.sums[line["path"]] = line["md5"]
            case "stage":
                self.stages[line["stage"]] = line
            case other:
                raise LookupError(other)


def read_state(target: Path) -> tuple[State, int]:
    """Read the journal without touching it. Returns what it tells, and how many of its bytes are whole lines.

    Raises:
        OSError: it is there and cannot be read.
    """
    state, whole = State(), 0
    try:
        data = (target / FOLDER / _NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return state, 0
    for text in data.splitlines(keepends=True):
        try:
            if not text.endswith(b"\n"):
                break
            line = json.loads(text)
            if whole == 0 and (line["what"], line["version"]) != ("start", _VERSION):
                break
            state.take(line)
        except (ValueError, LookupError, TypeError, AttributeError):
            break
        whole += len(text)
    return state, whole


class Journal:
    """Appends lines that last. Made by `begin` or `resume`; only one process at a time may have it."""

    def __init__(self, target: Path, state: State) -> None:
        self.state = state
        self._path = target / FOLDER / _NAME

    @classmethod
    def begin(cls, target: Path, **start: Any) -> "Journal":
        """Start anew: whatever journal was there is replaced.

        Raises:
            OSError: it cannot be written.
        """
        journal = cls(target, State())
        with contextlib.suppress(FileNotFoundError):
            journal._path.unlink()
        journal.note([{"what": "start", "version": _VERSION, **start}])
        sync_folder(journal._path.parent)
        return journal

    @classmethod
    def resume(cls, target: Path) -> "Journal":
        """Go on with the one that is there, without a last line that was torn.

        Raises:
            OSError: it cannot be read or written.
        """
        state, whole = read_state(target)
        journal = cls(target, state)
        descriptor = os.open(journal._path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, whole)
        finally:
            os.close(descriptor)
        return journal

    def note(self, lines: Sequence[dict[str, Any]]) -> None:
        """Append lines, and wait until they last. What they tell of must last already.

        Raises:
            OSError: they cannot be written.
        """
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        for line in lines:
            self.state.take(dict(line))

    def note_stage(self, stage: str, **told: Any) -> None:
        """Note that a stage is finished."""
        self.note([{"what": "stage", "stage": stage, **told}])


@contextlib.contextmanager
def alone_at(target: Path) -> Iterator[None]:
    """Make the folder of a preparation and hold its lock; wait for another process that does, telling which one it is.

    The kernel lets go of the lock when the process dies, however it dies.

    Raises:
        DataError: something else stands in the folder's place.
        OSError: it cannot be made.
    """
    folder = target / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    make_folder(os.fspath(folder))
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            logger.info(f"{holder} prepares {target} already: waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:  # NFS without a lock daemon: then two at once are the user's care
            logger.warning(f"{target} {_NO_LOCKS.format(error.strerror)}")
        told = f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')},\n"
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, told.encode(), 0)
        yield
    finally:
        os.close(descriptor)


def remove_empty(target: Path) -> None:
    """Delete the folder of a preparation that came to nothing, and the target where nothing else is in it."""
    shutil.rmtree(target / FOLDER, ignore_errors=True)
    with contextlib.suppress(OSError):
        target.rmdir()
