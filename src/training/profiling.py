"""A trace of some steps, and the operations that took longest."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from loguru import logger
from torch import profiler

_WAIT, _WARMUP = 3, 2


@contextmanager
def profiling(steps: int, folder: Path) -> Iterator[Callable[[], None]]:
    """Yield what to call after each step. With 0 steps it does nothing.

    Args:
        steps: to record, after a few that are left out.
        folder: gets trace.json (for chrome://tracing or Perfetto) and operations.txt.
    """
    if steps == 0:
        yield _nothing
        return
    on_gpu = torch.cuda.is_available()
    activities = [profiler.ProfilerActivity.CPU, *([profiler.ProfilerActivity.CUDA] if on_gpu else [])]

    def write(done: profiler.profile) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        done.export_chrome_trace(str(folder / "trace.json"))
        order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        table = done.key_averages().table(sort_by=order, row_limit=20)
        (folder / "operations.txt").write_text(table)
        logger.info(f"profile of {steps} steps in {folder}\n{table}")

    schedule = profiler.schedule(wait=_WAIT, warmup=_WARMUP, active=steps, repeat=1)
    with profiler.profile(activities=activities, schedule=schedule, on_trace_ready=write) as recorder:
        yield recorder.step


def _nothing() -> None:
    return None
