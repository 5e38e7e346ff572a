"""The console on rank 0: loguru to stderr, a progress bar on a terminal, a line now and then in a log, a table row an epoch."""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

if TYPE_CHECKING:  # importing it would import torch, which preparing data has no use for
    from src.batch import Record

_FORMAT = "<dim>{time:HH:mm:ss}</dim> <level>{level: <7}</level> {message}"
_COLUMNS = ("epoch", "time", "train loss", "acc1", "acc5", "val loss", "acc1", "acc5")
_TELL_SECONDS = 30.0
_WIDTHS = (6, 9, 11, 7, 7, 9, 7, 7)


def start_console(*, speaks: bool) -> Console:
    """Send loguru to stderr on the rank that speaks, warnings and worse on the others. Returns the console for progress bars."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    logger.remove()
    logger.add(
        lambda message: console.print(Text.from_ansi(str(message).rstrip("\n"))),  # rich < 14.1 drops the last line break itself
        level="INFO" if speaks else "ERROR",
        format=_FORMAT,
        colorize=console.is_terminal,
        diagnose=False,
        backtrace=False,
    )
    logging.getLogger("torch").setLevel(logging.ERROR)
    return console


def also_log_to(path: Path) -> None:
    """Keep what the console says in a file, too. A disk that refuses it is told of once, and ends nothing."""
    form = "{time:YYYY-MM-DD HH:mm:ss} {level: <7} {message}"
    logger.add(_LogFile(path).write, level="INFO", format=form, diagnose=False, backtrace=False)


class _LogFile:
    """A text file that is opened at each line, for lines are few, and loguru's own prints a traceback for each that fails."""

    def __init__(self, path: Path) -> None:
        self._path, self._told = path, False

    def write(self, message: str) -> None:
        """Append a line, or leave it."""
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(message)
        except OSError as error:
            if not self._told:
                self._told = True
                print(f"{self._path} cannot be written: {error.strerror}. Lines are missing there.", file=sys.stderr, flush=True)


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
        left = _duration((all_bytes - size) / speed) if speed > 0 else "?"
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


class ConsoleTracker:
    """Shows records as they come.

    Args:
        console: from start_console.
        total_steps: of the run.
        first_step: where this process starts.
        progress: whether to show a bar, on a terminal.
    """

    def __init__(self, console: Console, *, total_steps: int, first_step: int, progress: bool) -> None:
        self._total = total_steps
        self._has_header = False
        self._bar: Progress | None = None
        if progress and console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=console, transient=True, refresh_per_second=2)
            self._task = self._bar.add_task("training", total=total_steps, completed=first_step)
            self._bar.start()

    def advance(self, step: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def log(self, record: "Record") -> None:
        """Show a window as a line (on a terminal in the bar), an epoch as a row of the table."""
        values = record.values
        if record.kind == "epoch":
            self._row(record)
            return
        text = f"loss {values['train/loss']:.4f}  acc1 {values['train/acc1']:.2f}  lr {values['train/lr']:.3g}"
        text += f"  {values['time/images_per_second']:,.0f} images/s  waiting {values['time/data_wait_fraction']:.0%}"
        if self._bar is not None:
            self._bar.update(self._task, description=f"epoch {record.epoch}  {text}")
        else:
            logger.info(f"step {record.step:,}/{self._total:,}  {text}")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def _row(self, record: "Record") -> None:
        if not self._has_header:
            self._has_header = True
            logger.info("".join(f"{name:>{width}}" for name, width in zip(_COLUMNS, _WIDTHS, strict=True)))
        value = record.values
        cells = [f"{record.epoch}", _duration(value["time/epoch_seconds"] + value.get("time/eval_seconds", 0.0))]
        cells += [_number(value.get(key, math.nan), digits) for key, digits in _SHOWN]
        logger.info("".join(f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)))


_SHOWN = (("train/loss", 4), ("train/acc1", 2), ("train/acc5", 2), ("val/loss", 4), ("val/acc1", 2), ("val/acc5", 2))


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def say_result(line: str) -> None:
    """Print the result: stdout's last line."""
    print(line, file=sys.stdout, flush=True)
