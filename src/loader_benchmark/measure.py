"""All loaders on the same images, in interleaved rounds: each in its own process, one at work, the others idle.

Every round each contender makes one pass; the order turns from round to round. What is compared, is compared within a round.
"""

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from loguru import logger
from rich.console import Console

from src.config import ConfigError, Problem
from src.loader_benchmark.catalogue import CATALOGUE, Entry, Task
from src.loader_benchmark.options import Options
from src.loader_benchmark.process import ContenderFailed, PeakMemory, Process
from src.loader_benchmark.report import print_table, write_plot
from src.loader_benchmark.results import circumstances, compare
from src.loader_benchmark.scratch import prepare, scratch_folder
from src.machine import allowed_cpus
from src.step_benchmark import interval_of_median
from src.tracking.console import start_console
from src.tracking.progress import counting

_START_TIMEOUT, _PASS_TIMEOUT = 300.0, 300.0  # s; once started, it also gets the tenfold of what that took
_ROUNDS_A_WORKER = 12  # batches an epoch for each worker, at least: else its ends would be too much of it
_BUSY_WHILE_IDLE = 0.01


class Pass(NamedTuple):
    """One contender's part of a round."""

    images_per_second: float
    cpu_seconds_per_1000: float


class Running:
    """A contender at its start, and what is learnt of it."""

    def __init__(self, entry: Entry, task: Task, log: Path) -> None:
        self.entry, self._task = entry, task
        self.process = Process(task, log)
        self._passes: list[Pass] = []
        self._idle_cpu = self._idle_seconds = 0.0
        self._timeout = _PASS_TIMEOUT

    def start(self, scratch: Path) -> None:
        """Build it, let it compile and warm up for an epoch, and look at what it makes in two more."""
        began = time.monotonic()
        self.first_batch_seconds = self.process.ask({"do": "start"}, timeout=_START_TIMEOUT)["first_batch_seconds"]
        with PeakMemory(self.process, scratch) as memory:
            self._ask("finish", 0)
        self.peak_mib = memory.mib
        self.dtype = self._ask("check", 0)["dtype"]
        self._timeout += 10 * (time.monotonic() - began)
        self._rest()

    def make_pass(self, seconds: float) -> None:
        """Let it run, and count its time."""
        cpu = self.process.cpu_seconds()
        self._idle_cpu += cpu - self._rested_at[0]
        self._idle_seconds += time.monotonic() - self._rested_at[1]
        reply = self._ask("pass", seconds)
        self._rest()
        used = self._rested_at[0] - cpu
        self._passes.append(Pass(reply["images"] / reply["seconds"], 1000 * used / reply["shown"]))

    @property
    def speeds(self) -> list[float]:
        """Images a second, a round each."""
        return [one.images_per_second for one in self._passes]

    @property
    def idle_cpu_fraction(self) -> float:
        """CPU seconds for each second in which others worked."""
        return self._idle_cpu / max(self._idle_seconds, 1e-9)

    def figures(self) -> dict[str, Any]:
        """Return what goes into the JSON."""
        return {
            "images_per_second": statistics.median(self.speeds),
            "interval": interval_of_median(self.speeds),
            "n": len(self.speeds),
            "cpu_seconds_per_1000": statistics.median(one.cpu_seconds_per_1000 for one in self._passes),
            "first_batch_seconds": self.first_batch_seconds,
            "peak_mib": self.peak_mib,
            "idle_cpu_fraction": self.idle_cpu_fraction,
            "stored": self.entry.stored,
            "dtype": self.dtype,
            "note": self.entry.note,
        }

    def _ask(self, what: str, seconds: float) -> dict[str, Any]:
        return self.process.ask({"do": what, "seconds": seconds}, timeout=self._timeout + 10 * seconds)

    def _rest(self) -> None:
        self.process.settle()
        self._rested_at = self.process.cpu_seconds(), time.monotonic()


def measure_loaders(options: Options) -> dict[str, Any]:
    """Measure and report; progress, table and warnings go to stderr.

    Returns:
        The figures.

    Raises:
        ConfigError: the data or the number of workers cannot be used, or nobody could be measured.
    """
    console = start_console(speaks=True)
    workers = _settle_cpus(options.workers)
    entries = [CATALOGUE[name] for name in options.only or CATALOGUE]
    with _ended_by_signals(), scratch_folder(options, [entry.needs for entry in entries]) as scratch:
        with counting(console, "preparing images") as progress:
            prepared = prepare(options, scratch, {entry.needs for entry in entries}, threads=workers, progress=progress)
        batches = max(options.images // options.batch, _ROUNDS_A_WORKER * workers)
        size = (options.images, batches, options.image_size, options.batch, workers)
        absent = {entry.name: prepared["missing"][entry.needs] for entry in entries if entry.needs in prepared["missing"]}
        tasks = {entry.name: Task(entry.name, str(scratch), *size) for entry in entries if entry.name not in absent}
        running, failed = _run(tasks, options, scratch, console)
    if not running:
        reasons = [Problem(name, None, reason) for name, reason in (absent | failed).items()]
        raise ConfigError("the loaders: nobody could be measured", reasons)
    for one in running:
        if one.idle_cpu_fraction > _BUSY_WHILE_IDLE:
            logger.warning(f"{one.entry.name} used {one.idle_cpu_fraction:.1%} of a CPU while others were measured")
    result = {
        "benchmark": "loaders",
        "engines": {one.entry.name: one.figures() for one in running if one.entry.ours},
        "peers": {one.entry.name: one.figures() for one in running if not one.entry.ours},
        "missing": absent | failed,
        **compare({one.entry.name: one.speeds for one in running}),
        **circumstances(options, next(iter(tasks.values())), prepared),
    }
    print_table(console, result)
    if options.plot is not None:
        write_plot(result, options.plot)
    return result


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end this as Ctrl-C does: processes ended, scratch folder deleted."""

    def leave(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _settle_cpus(wanted: int | None) -> int:
    """Keep this process, and so all that it starts, on as many CPUs as there are workers."""
    allowed = allowed_cpus()
    if wanted is not None and wanted > allowed:
        fix = f"this process may use {allowed} CPUs. Set workers={allowed} or less."
        raise ConfigError("the command line", [Problem("workers", wanted, fix)])
    workers = wanted or allowed
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:workers])
    return workers


def _run(tasks: dict[str, Task], options: Options, scratch: Path, console: Console) -> tuple[list[Running], dict[str, str]]:
    """Start them one after the other, then let them pass in rounds. Returns those that lasted, and what ended the others."""
    failed: dict[str, str] = {}
    started: list[Running] = []
    finished = False

    def lasting() -> list[Running]:
        return [one for one in started if one.entry.name not in failed]

    try:
        with counting(console, "starting") as progress:
            for number, (name, task) in enumerate(tasks.items()):
                one = Running(CATALOGUE[name], task, scratch / f"{number}.log")
                started.append(one)
                if _survives(one, failed, lambda one=one: one.start(scratch)):  # type: ignore[misc]
                    logger.info(f"{name}: first batch after {one.first_batch_seconds:.1f} s, {one.peak_mib:,.0f} MiB")
                progress(number + 1, len(tasks))
        with counting(console, "measuring") as progress:
            for number in range(options.pairs):
                for place, one in enumerate(_turned(lasting(), number)):
                    if _survives(one, failed, lambda one=one: one.make_pass(options.seconds)):  # type: ignore[misc]
                        told = f"{one.speeds[-1]:,.0f} images/s"
                        logger.info(f"round {number + 1} of {options.pairs}: {one.entry.name}: {told}")
                    progress(number * len(tasks) + place + 1, options.pairs * len(tasks))
        finished = True
    finally:
        for one in started:
            one.process.end(gently=finished)
    return lasting(), failed


def _survives(one: Running, failed: dict[str, str], work: Callable[[], None]) -> bool:
    try:
        work()
    except ContenderFailed as error:
        failed[one.entry.name] = f"not installed: {error}" if error.absent else str(error)
        logger.warning(f"{one.entry.name}: {failed[one.entry.name]}")
        one.process.end(gently=False)
        return False
    return True


def _turned(running: Sequence[Running], number: int) -> list[Running]:
    """Return another order for each round: who begins moves on, and every second time they go backwards."""
    start = number % max(1, len(running))
    turned = [*running[start:], *running[:start]]
    return turned[::-1] if number % 2 else turned
