"""A sign of life in the run's folder, for where a lock does not reach: file systems without locks, and locks that stay on one node.

flock may be missing (ENOLCK, ENOSYS), or hold on its own node only (Lustre's `localflock`, NFS's `local_lock`), which nobody can
see from within. So whoever holds the folder rewrites a small file every few seconds; who finds one watches it. Clocks of two hosts
are never compared. It is rewritten in place, for NFS promises to show at open() what another host wrote and closed, while the name
of a replaced file may stay in its cache for a minute.

Who died on the same running kernel is known by the lock, which works there: nothing is waited for after a plain crash.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from loguru import logger

INTERVAL = 4.0  # seconds between two beats
WATCH = 20.0  # seconds without any before the holder counts as dead
SETTLE = 2.0  # seconds after which of two that took over at once, the later one has it
_POLL = 0.2


class HeldError(Exception):
    """Somebody else's heart beats. The text names who."""


class Heartbeat:
    """This process's sign of life, from when it is made until it is closed.

    Args:
        path: of the file.
        locked: whether a lock is held that reaches every process of this kernel.

    Raises:
        HeldError: somebody else's beats.
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, *, locked: bool) -> None:
        self._path, self._locked = path, locked
        self._token, self._count = uuid.uuid4().hex, 0
        self._stop = threading.Event()
        while not self._taken():
            pass
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and take the file away."""
        self._stop.set()
        self._thread.join(timeout=INTERVAL)  # a disk that does not answer must not hold up the end
        if _told(_read(self._path)).get("token") == self._token:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _taken(self) -> bool:
        """Create the file, or take over a dead one's; False if it went away meanwhile."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            return self._taken_over()
        with open(descriptor, "wb") as file:
            file.write(self._content())
        return True

    def _taken_over(self) -> bool:
        before = _read(self._path)
        if self._locked and _told(before).get("boot") == boot_id() != "":
            self._write()
            return True
        if not self._is_still(before):
            return False
        self._write()
        time.sleep(SETTLE)
        now = _read(self._path)
        if _told(now).get("token") != self._token:
            raise HeldError(_who(now))
        return True

    def _is_still(self, before: bytes | None) -> bool:
        """Watch; False if the file went away."""
        logger.warning(f"{self._path} was left by {_who(before)}: watching for {WATCH:.0f} s whether it lives.")
        end = time.monotonic() + WATCH
        while time.monotonic() < end:
            time.sleep(_POLL)
            now = _read(self._path)
            if now is None:
                return False
            if now != before:
                raise HeldError(_who(now))
        return True

    def _beat(self) -> None:
        while not self._stop.wait(INTERVAL):
            with contextlib.suppress(OSError):  # a disk that fails now and then: the next beat counts
                found = _read(self._path)
                if _told(found).get("token", self._token) != self._token:
                    self._give_way(found)
                self._write()

    def _give_way(self, found: bytes | None) -> None:
        """End the process: it was silent for so long (suspended, or its disk hung) that another one has the folder now."""
        logger.error(
            f"{self._path.parent} was taken over by {_who(found)} while this process stood still: it ends, and writes nothing."
        )
        os._exit(1)

    def _write(self) -> None:
        self._count += 1
        with open(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644), "wb") as file:
            file.write(self._content())
            file.truncate()

    def _content(self) -> bytes:
        told = {"host": socket.gethostname(), "pid": os.getpid(), "boot": boot_id(), "token": self._token, "count": self._count}
        return json.dumps(told).encode()


def boot_id() -> str:
    """Return what tells one running kernel from another, or "" where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _read(path: Path) -> bytes | None:
    """Return the content, or None if there is no file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _told(content: bytes | None) -> dict[str, Any]:
    try:
        told = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _who(content: bytes | None) -> str:
    told = _told(content)
    return f"process {told.get('pid')} on {str(told.get('host'))[:100]}" if told else "another process"
