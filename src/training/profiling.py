"""A profile of some steps: a trace, the operations that took longest, and whether data, compute or communication bounds the run.

The loop knows nothing of it: the ranges in the trace (data, augment, forward, backward, optimizer) are opened and closed by what
stands around the run's own parts while they are watched.
"""

import gzip
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from loguru import logger
from torch import profiler

from src import distributed
from src.files import write_atomically
from src.training.profile_ranges import Ranges
from src.training.run import Run
from src.training.step_shares import Shares, Verdict, shares_of, verdict

_WAIT, _WARMUP = 3, 2  # steps before those that are recorded, where there are as many
_LEAST = 2  # steps: one to warm the profiler up, one to record
_ROWS = 20


class Profiling(Protocol):
    """What train_run.py calls."""

    def watch(self, run: Run) -> None:
        """Begin, with a run that stands at its first step. Every rank must call it."""

    def after_step(self) -> None:
        """Learn that a step is done. Every rank must call it."""


@contextmanager
def profiling(steps: int, folder: Path) -> Iterator[Profiling]:
    """Yield what is told of the run and of each step. With 0 steps it does nothing.

    Args:
        steps: to record, after a few that are left out.
        folder: gets trace.json.gz (for https://ui.perfetto.dev or chrome://tracing), operations.txt and summary.json, on rank 0.
    """
    if steps == 0:
        yield NoProfile()
        return
    profile = Profile(steps, folder)
    try:
        yield profile
    finally:
        profile.close()


class NoProfile:
    """Nothing is profiled."""

    def watch(self, run: Run) -> None:
        """Do nothing."""

    def after_step(self) -> None:
        """Do nothing."""


class Profile:
    """Records some steps of a run. See profiling()."""

    def __init__(self, steps: int, folder: Path) -> None:
        self._steps, self._folder = steps, folder
        self._recorder: profiler.profile | None = None
        self._ranges: Ranges | None = None
        self._in_step = False

    def watch(self, run: Run) -> None:
        """Begin, with as many steps as there are left where those are fewer."""
        left = run.total_steps - run.step
        if left < _LEAST:
            logger.warning(f"no profile: {left} steps are left to train, and it takes {_LEAST}")
            return
        wait, warmup, self._steps = fitted(self._steps, left)
        activities = [profiler.ProfilerActivity.CPU]
        if run.device.type == "cuda":
            activities.append(profiler.ProfilerActivity.CUDA)
        schedule = profiler.schedule(wait=wait, warmup=warmup, active=self._steps, repeat=1)
        self._on_gpu = run.device.type == "cuda"
        self._ranges = Ranges(run)
        self._recorder = profiler.profile(activities=activities, schedule=schedule, on_trace_ready=self._ready)
        self._recorder.start()

    def after_step(self) -> None:
        """Go on to the next step; after the last one that is recorded, look at all."""
        if self._recorder is None or self._ranges is None:
            return
        self._ranges.end()
        self._in_step = True
        self._recorder.step()
        self._in_step = False

    def close(self) -> None:
        """End, also in the middle."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            self._let_go()
            recorder.stop()
            logger.warning("no profile: training ended before its steps were recorded")

    def _let_go(self) -> None:
        if self._ranges is not None:
            self._ranges.take_away()
            self._ranges = None

    def _ready(self, recorder: profiler.profile) -> None:
        """Look at the trace on every rank, and write on rank 0. Called in the same step everywhere, or at the end of one alone."""
        if not self._in_step:
            return
        self._recorder = None
        self._let_go()
        trace = _trace_of(recorder)
        ranks: list[Shares | None] = distributed.gather(_shares_in(trace))
        if distributed.rank() == 0:
            self._tell(recorder, trace, [shares for shares in ranks if shares is not None])

    def _tell(self, recorder: profiler.profile, trace: bytes, ranks: list[Shares]) -> None:
        """Write and say what was found. A disk that refuses it ends nothing."""
        order = "self_device_time_total" if self._on_gpu else "self_cpu_time_total"
        table = recorder.key_averages().table(sort_by=order, row_limit=_ROWS)
        files = {"trace.json.gz": gzip.compress(trace), "operations.txt": table.encode()}
        words = "no verdict: the trace cannot be read"
        if ranks:
            said = verdict(ranks)
            words = in_words(said, ranks)
            files["summary.json"] = (json.dumps(summary(said, ranks, self._steps), indent=2) + "\n").encode()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                write_atomically(self._folder / name, content)
        except OSError as error:
            logger.warning(f"{self._folder} cannot be written: {error.strerror}. The profile is not kept.")
        logger.info(f"profile of {self._steps} steps in {self._folder}\n{table}")
        logger.info(words)


def fitted(steps: int, left: int) -> tuple[int, int, int]:
    """Return how many steps are waited for, warm the profiler up, and are recorded, where `left` >= 2 are left."""
    active = min(steps, max(1, left - _WARMUP))
    warmup = min(_WARMUP, left - active)
    return min(_WAIT, left - active - warmup), warmup, active


def summary(said: Verdict, ranks: list[Shares], steps: int) -> dict[str, Any]:
    """Return the figures for machines."""
    rounded = [{name: round(value, 6) for name, value in shares._asdict().items()} for shares in ranks]
    return {"bound_by": said.bound, "by_rank": said.rank, "advice": said.advice, "steps": steps, "ranks": rounded}


def in_words(said: Verdict, ranks: list[Shares]) -> str:
    """Return the verdict for people, with the numbers behind it."""
    shares = ranks[said.rank]
    whose = f" of rank {said.rank}, for which the others wait" if len(ranks) > 1 else ""
    exchanged = f", {shares.hidden:.0%} more of it hidden behind compute" if shares.hidden >= 0.005 else ""
    return (
        f"bound by {said.bound}: of a step of {1000 * shares.step_seconds:.3g} ms{whose}, {shares.compute:.0%} compute, "
        f"{shares.data:.0%} waiting for data, {shares.communication:.0%} communication{exchanged}, "
        f"{shares.host:.0%} Python and dispatch. {said.advice}"
    )


def _shares_in(trace: bytes) -> Shares | None:
    """Return where the time went, or None for what is no JSON: a rank that raised here would be waited for."""
    try:
        return shares_of(json.loads(trace)["traceEvents"])
    except ValueError:
        return None


def _trace_of(recorder: profiler.profile) -> bytes:
    """Return the trace as JSON; the profiler writes only into files."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorder.export_chrome_trace(str(path))
        return path.read_bytes()
