"""Asking a run to stop: SIGTERM, SIGUSR1, Ctrl-C, or a file named STOP in its folder.

The handler sets a flag and nothing else; the loop looks at it once a step.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_SAME_EVENT_SECONDS = 2.0  # torchrun passes on a signal that its workers got already
_LOOK_EVERY_SECONDS = 1.0


class Preempted(Exception):  # noqa: N818 (no error: it is what was asked for)
    """The run was asked to stop, and its state is saved."""


class StopRequests:
    """Whether this process was asked to stop. A second request ends the process at once.

    Args:
        stop_file: looked for once a second.
    """

    def __init__(self, stop_file: Path) -> None:
        self._stop_file = stop_file
        self._first: float | None = None
        self._looked = -_LOOK_EVERY_SECONDS
        self.interrupted = False

    @contextmanager
    def listening(self) -> Iterator["StopRequests"]:
        """Handle the signals inside, and put the old handlers back."""
        self._old = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            yield self
        finally:
            for number, handler in self._old.items():
                signal.signal(number, handler)

    def pending(self) -> bool:
        """Return whether to stop."""
        if self._first is not None:
            return True
        now = time.monotonic()
        if now - self._looked >= _LOOK_EVERY_SECONDS:
            self._looked = now
            if self._stop_file.exists():
                self._first = now
        return self._first is not None

    def _handle(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
            self.interrupted = number == signal.SIGINT
        elif now - self._first > _SAME_EVENT_SECONDS:
            os._exit(128 + number)
