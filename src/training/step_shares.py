"""Where a step's time goes, from a trace of torch.profiler, and what that says: is a run bound by data, compute or communication?

Pure functions of the trace's events (the format of chrome://tracing: names, categories, microseconds).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

Bound = Literal["data", "compute", "communication", "host"]
Event = dict[str, Any]
Intervals = list[tuple[float, float]]  # sorted, apart from each other

DATA, APART = "data", ("evaluation", "checkpoint")  # ranges of src/training/profile_ranges.py
_ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")  # Kineto's categories
_WORTH_A_LOOK = 0.2  # of a step: what takes less is not what to mend first
_ADVICE: dict[Bound, str] = {
    "data": "Try more data.workers or cores, a faster data.engine, smaller stored images, or data.in_memory=true.",
    "compute": "The hardware is at work. Try precision=bf16 and compile=true on a GPU, smaller images, or more GPUs.",
    "communication": "Try a larger batch_size, so that gradients are exchanged less often an image, or a faster network.",
    "host": "The device waits to be told what to do. Try compile=true, larger micro-batches, or fewer operations in augment.",
}


class Shares(NamedTuple):
    """Shares of a step, which add up to 1, and what is besides.

    Attributes:
        compute: something other than communication was computed, on the GPU or by this thread.
        data: nothing was, and the loop waited for a batch.
        communication: neither, and gradients were exchanged, or other ranks waited for.
        host: none of these: Python, and what it takes to start operations.
        hidden: share of a step in which gradients were exchanged while something was computed: it costs nothing.
        step_seconds: mean length of a step, profiler's overhead included.
    """

    compute: float
    data: float
    communication: float
    host: float
    hidden: float
    step_seconds: float


class Verdict(NamedTuple):
    """What bounds a run, by which rank's shares, and what to try."""

    bound: Bound
    rank: int
    advice: str


def shares_of(events: Iterable[Event]) -> Shares | None:
    """Add up a trace of some steps. Evaluations and checkpoints between them do not count.

    Returns:
        None where the trace holds no whole step.
    """
    timed = [event for event in events if event.get("ph") == "X" and "dur" in event]
    steps = [event for event in timed if str(event["name"]).startswith("ProfilerStep#") and event.get("cat") == "user_annotation"]
    if not steps:
        return None
    thread = (steps[0]["pid"], steps[0]["tid"])
    apart = _intervals(event for event in timed if event["name"] in APART and event.get("cat") == "user_annotation")
    window = _without(_intervals(steps), apart)
    length = _length(window)
    device = [event for event in timed if event.get("cat") in _ON_GPU]
    if device:
        exchanging = _intervals(event for event in device if "nccl" in str(event["name"]).lower())
        computing = _intervals(event for event in device if "nccl" not in str(event["name"]).lower())
    else:
        exchanging = _intervals(event for event in timed if str(event["name"]).startswith("gloo:"))
        computing = _intervals(event for event in timed if event.get("cat") == "cpu_op" and (event["pid"], event["tid"]) == thread)
    waiting = _intervals(event for event in timed if event["name"] == DATA and event.get("cat") == "user_annotation")
    idle = _without(window, computing)
    not_fed = _without(idle, waiting)
    neither = _without(not_fed, exchanging)
    exchanged, exchanged_idle = length - _length(_without(window, exchanging)), _length(idle) - _length(_without(idle, exchanging))
    return Shares(
        compute=(length - _length(idle)) / length,
        data=(_length(idle) - _length(not_fed)) / length,
        communication=(_length(not_fed) - _length(neither)) / length,
        host=_length(neither) / length,
        hidden=(exchanged - exchanged_idle) / length,
        step_seconds=length / len(steps) / 1e6,
    )


def verdict(ranks: Sequence[Shares]) -> Verdict:
    """Say what bounds a run, from every rank's shares.

    Ranks wait for the slowest in their exchange of gradients, and for a rank that has no batch as well. The slowest itself waits
    least there, so its shares say what the others wait for.
    """
    rank = min(range(len(ranks)), key=lambda number: ranks[number].communication)
    shares = ranks[rank]
    others: dict[Bound, float] = {"data": shares.data, "communication": shares.communication, "host": shares.host}
    most = max(others, key=lambda bound: others[bound])
    bound: Bound = most if others[most] >= _WORTH_A_LOOK else "compute"
    return Verdict(bound, rank, _ADVICE[bound])


def _intervals(events: Iterable[Event]) -> Intervals:
    """Return the union of the events' times, in microseconds."""
    united: Intervals = []
    for begin, end in sorted((float(event["ts"]), float(event["ts"]) + float(event["dur"])) for event in events):
        if united and begin <= united[-1][1]:
            united[-1] = (united[-1][0], max(end, united[-1][1]))
        else:
            united.append((begin, end))
    return united


def _without(whole: Intervals, taken: Intervals) -> Intervals:
    """Return what of the first is not in the second. Both are sorted and apart."""
    left: Intervals = []
    first = 0
    for begin, end in whole:
        while first < len(taken) and taken[first][1] <= begin:
            first += 1
        at = first
        while at < len(taken) and taken[at][0] < end:
            if taken[at][0] > begin:
                left.append((begin, taken[at][0]))
            begin = max(begin, taken[at][1])
            at += 1
        if begin < end:
            left.append((begin, end))
    return left


def _length(intervals: Intervals) -> float:
    return sum(end - begin for begin, end in intervals)
