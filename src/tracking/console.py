"""The console on rank 0: loguru to stderr, a progress bar on a terminal, a line now and then in a log, a table row an epoch."""

import logging
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from src.tracking.progress import duration

if TYPE_CHECKING:  # importing it would import torch, which preparing data has no use for
    from src.batch import Record

_FORMAT = "<dim>{time:HH:mm:ss}</dim> <level>{level: <7}</level> {message}"
_COLUMNS = ("epoch", "time", "train loss", "acc1", "acc5", "val loss", "acc1", "acc5")
_WHERE_KNOWN = (("MFU", "time/mfu"), ("GPU", "gpu/utilisation"))
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
        text += "".join(f"  {name} {values[key]:.0%}" for name, key in _WHERE_KNOWN if key in values)
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
        cells = [f"{record.epoch}", duration(value["time/epoch_seconds"] + value.get("time/eval_seconds", 0.0))]
        cells += [_number(value.get(key, math.nan), digits) for key, digits in _SHOWN]
        logger.info("".join(f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)))


_SHOWN = (("train/loss", 4), ("train/acc1", 2), ("train/acc5", 2), ("val/loss", 4), ("val/acc1", 2), ("val/acc5", 2))


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def say_result(line: str) -> None:
    """Print the result: stdout's last line."""
    print(line, file=sys.stdout, flush=True)
