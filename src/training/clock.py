"""Where the time goes: images a second and the share of it that the loop waited for data. Durations are monotonic."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Timing(NamedTuple):
    """Of a window: seconds of training, and of these the seconds blocked in next()."""

    seconds: float
    waited: float


class Clock:
    """Runs while training runs, and stands still in evaluation and saves."""

    def __init__(self, elapsed_before: float = 0.0) -> None:
        self._elapsed, self._since = elapsed_before, time.monotonic()
        self._waited, self._running = 0.0, False
        self._window, self._epoch = (elapsed_before, 0.0), (elapsed_before, 0.0)

    def resume_from(self, elapsed: float) -> None:
        """Count on from what an earlier process trained."""
        self.__init__(elapsed)  # type: ignore[misc]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time inside."""
        self._running, self._since = True, time.monotonic()
        try:
            yield
        finally:
            self._elapsed, self._running = self.elapsed, False

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, earlier processes included."""
        return self._elapsed + (time.monotonic() - self._since if self._running else 0.0)

    @property
    def elapsed_at_window(self) -> float:
        """Seconds of training up to the last call of `window`: two of them differ by that window's seconds."""
        return self._window[0]

    def waiting(self, items: Iterator[T]) -> Iterator[T]:
        """Pass the items on, and count the time blocked for each."""
        while True:
            start = time.monotonic()
            item = next(items, None)
            self._waited += time.monotonic() - start
            if item is None:
                return
            yield item

    def window(self) -> Timing:
        """Return the timing since the last call."""
        timing, self._window = self._since_mark(self._window)
        return timing

    def epoch(self) -> Timing:
        """Return the timing since the last call."""
        timing, self._epoch = self._since_mark(self._epoch)
        return timing

    def _since_mark(self, mark: tuple[float, float]) -> tuple[Timing, tuple[float, float]]:
        now = (self.elapsed, self._waited)
        return Timing(now[0] - mark[0], now[1] - mark[1]), now
