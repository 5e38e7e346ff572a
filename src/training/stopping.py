"""Asking a run to stop: SIGTERM, SIGUSR1, SIGHUP, Ctrl-C, or a file named STOP in its folder.

In the loop the handler sets a flag and nothing else; training looks at it once a step, an evaluation once a second. Before and
after the loop there is nothing to save, and a signal ends the process at once. Threads that load images take no part in it:
Python runs handlers in the main thread only.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from loguru import logger

from src import peers

T = TypeVar("T")
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)
_SAME_EVENT_SECONDS = 2.0  # torchrun passes on a signal that its workers got already
_LOOK_EVERY_SECONDS = 1.0
_WORD = "stop"


class Preempted(Exception):  # noqa: N818 (no error: it is what was asked for)
    """The run was asked to stop, and its state is saved."""


class StopRequests:
    """Whether this process was asked to stop. A second signal ends the process at once; a STOP file is never the second.

    Args:
        stop_file: looked for once a second. The one that stands there now was meant for an earlier process.
    """

    def __init__(self, stop_file: Path) -> None:
        self._stop_file, self._stale = stop_file, _identity(stop_file)
        self._first: float | None = None
        self._looked = self._asked_others = -_LOOK_EVERY_SECONDS
        self._told = False
        self.interrupted = False

    @contextmanager
    def listening(self) -> Iterator["StopRequests"]:
        """Handle the signals inside, and put the old handlers back."""
        with _handling(self._handle), _leaving_at_the_second():
            yield self

    def pending(self) -> bool:
        """Return whether to stop."""
        if self._first is not None:
            return True
        now = time.monotonic()
        if now - self._looked >= _LOOK_EVERY_SECONDS:
            self._looked = now
            if _identity(self._stop_file) not in (None, self._stale):
                self._first = now
        return self._first is not None

    def until_asked(self, batches: Iterator[T]) -> Iterator[T]:
        """Pass on the batches of an evaluation, of which ranks have different numbers, until any rank is asked to stop.

        Raises:
            Preempted: at the end, on all ranks or on none.
        """
        for batch in batches:
            if self._heard():
                break
            yield batch
        if peers.meet(self._heard):
            raise Preempted

    def _heard(self) -> bool:
        """Return whether this rank or, as far as it was told, another is to stop. Its own request it tells the others."""
        if self.pending():
            if not self._told:
                self._told = True
                peers.tell(_WORD)
            return True
        now = time.monotonic()
        if now - self._asked_others >= _LOOK_EVERY_SECONDS:
            self._asked_others = now
            self._told = peers.told(_WORD)
        return self._told

    def forget_old(self) -> None:
        """Take away the STOP file of an earlier process, and no newer one. For rank 0."""
        if self._stale is not None and _identity(self._stop_file) == self._stale:
            self._take_away()

    def obeyed(self) -> None:
        """Take away the STOP file, so that the next start goes on. For rank 0."""
        self._take_away()

    def _take_away(self) -> None:
        try:
            self._stop_file.unlink(missing_ok=True)
        except OSError as error:
            logger.warning(f"{self._stop_file} cannot be taken away ({error.strerror}): remove it, so that it stops a run again.")

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._first is None:
            self._first = time.monotonic()
            self.interrupted = number == signal.SIGINT


@contextmanager
def leaving_at_once(*, preempted: int, interrupted: int) -> Iterator[None]:
    """End the process on a signal, with one line: what a door does outside the loop, where nothing is to be saved.

    Args:
        preempted: exit code.
        interrupted: exit code after Ctrl-C.
    """

    def leave(number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        cursor = "\033[?25h" if sys.stderr.isatty() else ""  # a progress bar hides it
        text = f"{cursor}asked to stop ({name}) outside of training: nothing is to be saved. The same command goes on.\n"
        os.write(2, text.encode())
        os._exit(interrupted if number == signal.SIGINT else preempted)

    with _handling(leave):
        yield


@contextmanager
def _leaving_at_the_second() -> Iterator[None]:
    """End the process at the second signal, also where the main thread is in C and waits for a rank or a device that hangs.

    Python's handlers run between two lines of Python. What C writes into this pipe at once, a thread reads.
    """

    def watch() -> None:
        first = None
        while number := os.read(ears, 1):
            now = time.monotonic()
            if number[0] not in _SIGNALS:
                continue
            first = first or now
            if now - first > _SAME_EVENT_SECONDS:
                os._exit(128 + number[0])
        os.close(ears)

    ears, mouth = os.pipe()
    os.set_blocking(mouth, False)
    before = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    threading.Thread(target=watch, name="second signal", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(mouth)


@contextmanager
def _handling(handler: Any) -> Iterator[None]:
    """Handle the signals inside. A hang-up that is ignored (nohup) stays so."""
    numbers = [number for number in _SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    old = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, before)


def _identity(file: Path) -> tuple[int, int] | None:
    """Return what tells one STOP file from the next, or None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
