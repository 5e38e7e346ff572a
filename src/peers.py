"""Ranks that are asked to stop, die, or do not answer: how the others learn of it, and how long they wait.

With distributed.py the only place that says torch.distributed. Alone, every function here costs nothing.
"""

import contextlib
import datetime
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from src.distributed import blackboard, groups

_LOOK_EVERY_SECONDS = 0.002
# What NCCL's process group reads from torch 2.10 on: its name, and one under which the user may have set it; an older name still
# works, with a warning. How many events, and whether they are written, are torch's own defaults, said here because they changed.
_FLIGHTS_SIZE = ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE", "2000")
_FLIGHTS_WRITTEN = ("TORCH_NCCL_DUMP_ON_TIMEOUT", "TORCH_FR_DUMP_ON_TIMEOUT", "1")
_FLIGHTS_PATH = ("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")


class LostRank(Exception):  # noqa: N818 (it says what happened)
    """Another rank died, or did not answer in time."""


def tell(word: str) -> None:
    """Let every rank know a word, whatever they are doing now. It stays until this start of the processes ends."""
    board = blackboard()
    if board is not None:
        board.set(word, b"1")


def told(word: str) -> bool:
    """Return whether any rank told it. A question to rank 0's host: never in the training step."""
    board = blackboard()
    return board is not None and board.check([word])


def meet(look: Callable[[], bool]) -> bool:
    """Wait here for all ranks, and return whether any of them answered yes. Every rank must call it.

    Args:
        look: asked once for this rank's answer, then again and again while it waits: who is told something meanwhile can pass it
            on, so that the others need not be waited for to their end. Those later answers do not count.
    """
    answer = look()
    if not dist.is_initialized():
        return answer
    votes = torch.tensor([int(answer)])
    work = dist.all_reduce(votes, op=dist.ReduceOp.MAX, async_op=True)
    assert work is not None
    while not work.is_completed():
        look()
        time.sleep(_LOOK_EVERY_SECONDS)
    work.wait()
    return bool(votes.item())


class Patience:
    """Long until every rank has done its first step, which may compile or copy for minutes; short afterwards.

    Args:
        seconds: how long a collective waits for a rank then.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._steps = seconds, 0

    def after_step(self) -> None:
        """Count a step. After the second the vote of the first has been read: no rank is still busy with its first."""
        self._steps += 1
        if self._steps == 2:
            wait_at_most(self._seconds)


def wait_at_most(seconds: float) -> None:
    """From now on let collectives fail that a rank does not join within so many seconds."""
    timeout = datetime.timedelta(seconds=seconds)
    # Public in later versions; before, and in 2.10, this name. Both set it for every backend of a group.
    change = getattr(dist, "set_timeout", None) or getattr(dist.distributed_c10d, "_set_pg_timeout", None)
    for group in groups():
        if change is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                change(timeout, group)


def plainly(error: Exception) -> Exception:
    """Return a LostRank for an error that only says that another rank is gone or silent; any other error itself."""
    if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo/transport" in str(error)):
        what = str(error).splitlines()[0].partition("] ")[2].partition(". This is")[0] or str(error).splitlines()[0]
        return LostRank(f"another rank is gone or silent; its own message says why ({what})")
    return error


def record_flights(folder: Path) -> None:
    """Let NCCL's flight recorder write what each rank was waiting for into <folder>/rank_<n>, when a collective times out.

    Before the ranks join. What the user has set in the environment stays. That a timed-out or failed NCCL collective ends its
    process instead of waiting on is torch's default (TORCH_NCCL_ASYNC_ERROR_HANDLING=3) and is left so.
    """
    for name, other, value in (_FLIGHTS_SIZE, _FLIGHTS_WRITTEN, (*_FLIGHTS_PATH, f"{folder.absolute()}/rank_")):
        if name not in os.environ and other not in os.environ:
            os.environ[name] = value


def make_flights_folder(folder: Path, device: torch.device) -> None:
    """Make the folder, where there is a flight recorder: torch does not."""
    if device.type == "cuda" and dist.is_initialized():
        with contextlib.suppress(OSError):
            folder.mkdir(exist_ok=True)


def show_crashes() -> None:
    """Let a fatal signal (a segmentation fault, an abort by NCCL's watchdog) print where threads were, for torchrun's workers."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        get_error_handler().initialize()


def report(error: BaseException, *, known: bool) -> None:
    """Hand an error to torchrun, which shows the first one of all ranks at its end; with the traceback unless it is known.

    What torch's @record does, for a door that catches its errors. Call it where the error is being handled.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file is None:
        return
    if not known:
        get_error_handler().record_exception(error)
        return
    with contextlib.suppress(OSError):
        # torchrun takes the earliest for the cause, in whole seconds, and of two equal ones rank 0: who lost another came after it.
        moment = int(time.time()) + isinstance(error, LostRank)
        Path(file).write_text(json.dumps({"message": str(error), "timestamp": moment}))
