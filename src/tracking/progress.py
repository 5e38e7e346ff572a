"""How far long work is: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from loguru import logger
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

_TELL_SECONDS = 30.0


@contextmanager
def counting(console: Console, what: str) -> Iterator["Counting"]:
    """Show how far a long preparation is: a bar on a terminal, a line every tenth in a log."""
    if not console.is_terminal:
        yield Counting(what)
        return
    with Progress(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True
    ) as bar:
        yield _Bar(what, bar)


@contextmanager
def counting_bytes(console: Console, what: str) -> Iterator[Callable[[int, int, int], None]]:
    """Show how far writing a large file is, and then reading it back: called with (images done, images in all, bytes so far)."""
    rate = _Rate(what)
    if not console.is_terminal:
        told = [0]

        def log(done: int, total: int, size: int) -> None:
            speed = rate.of(done)
            tenth = 10 * done // max(total, 1)
            if tenth != told[0] and total >= 1000:
                told[0] = tenth
                logger.info(f"{rate.what}: {done:,} of {total:,} images, {speed:,.0f} images/s, {size / 2**20:,.0f} MiB")

        yield log
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)

        def show(done: int, total: int, size: int) -> None:
            speed = rate.of(done)
            text = f"{rate.what}  {speed:,.0f} images/s  {size / 2**20:,.0f} MiB"
            bar.update(task, completed=done, total=total, description=text)

        yield show


class Bars:
    """Shows how far each of several works is, one after the other: a bar on a terminal, a line now and then in a log.

    Args:
        console: from start_console.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def counting(self, what: str) -> AbstractContextManager["Counting"]:
        """Show (done, total)."""
        return counting(self._console, what)

    @contextmanager
    def amounts(self, what: str) -> Iterator[Callable[[int, int, int, int], None]]:
        """Show files and bytes, and how long it will still take: called with (files, files in all, bytes, bytes in all)."""
        if not self._console.is_terminal:
            yield _Amounts(what)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(what, total=None)

            def show(files: int, all_files: int, size: int, all_bytes: int) -> None:
                text = f"{what}  {files:,} of {all_files:,} files" if all_files else what
                bar.update(task, completed=size, total=all_bytes, description=text)

            yield show

    @contextmanager
    def transfer(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Show (bytes, bytes in all), and how long it will still take."""
        with self.amounts(what) as show:
            yield lambda done, total: show(0, 0, done, total)

    def say(self, text: str) -> None:
        """Print lines as they are."""
        print(text, file=sys.stderr, flush=True)


class _Amounts:
    """Tells in a log every half minute, with an estimate of the time that is left."""

    def __init__(self, what: str) -> None:
        self._what, self._start = what, time.monotonic()
        self._told, self._first = self._start, -1

    def __call__(self, files: int, all_files: int, size: int, all_bytes: int) -> None:
        """Take the amounts; say them if it is time."""
        now = time.monotonic()
        if self._first < 0:
            self._first = size
        if now - self._told < _TELL_SECONDS:
            return
        self._told = now
        speed = (size - self._first) / (now - self._start)
        left = duration((all_bytes - size) / speed) if speed > 0 else "?"
        files_done = f"{files:,} of {all_files:,} files, " if all_files else ""
        text = f"{self._what}: {files_done}{size / 2**30:,.2f} of {all_bytes / 2**30:,.2f} GiB"
        logger.info(f"{text}, {speed / 2**20:,.0f} MiB/s, {left} left")


class _Rate:
    """Images a second since counting began, or began anew: then what was written is read back."""

    def __init__(self, what: str) -> None:
        self.what, self._start, self._last = what, time.monotonic(), 0

    def of(self, done: int) -> float:
        if done < self._last:
            self.what, self._start = f"{self.what}, reading back", time.monotonic()
        self._last = done
        return done / max(time.monotonic() - self._start, 1e-3)


class Counting:
    """Called with (done, total). In a log it tells every tenth."""

    def __init__(self, what: str) -> None:
        self._what, self._told = what, 0

    def __call__(self, done: int, total: int) -> None:
        """Show the progress."""
        tenth = 10 * done // max(total, 1)
        if tenth > self._told and total > 10_000:
            self._told = tenth
            logger.info(f"{self._what}: {done:,} of {total:,}")


class _Bar(Counting):
    def __init__(self, what: str, progress: Progress) -> None:
        super().__init__(what)
        self._progress, self._task = progress, progress.add_task(what, total=None)

    def __call__(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)


def duration(seconds: float) -> str:
    """Return h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
