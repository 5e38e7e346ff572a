"""How long calls take beside each other: interleaved, so that a busy or throttled machine slows all of them alike."""

import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

# What decides how fast int8 is on an x86 CPU (dot products of bytes), as Linux spells it.
_FEATURES = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


class Latency(NamedTuple):
    """What was measured of one callable.

    Attributes:
        median_ms: milliseconds.
        p95_ms: milliseconds, the 95th percentile.
        ratio: the median of (its time / the first callable's time in the same round): what a drift of the machine cancels from.
        rounds: how many calls were counted.
    """

    median_ms: float
    p95_ms: float
    ratio: float
    rounds: int


def measure(
    calls: Mapping[str, Callable[[], object]],
    *,
    warm_up: int,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Latency]:
    """Call each once a round, in turn, and in the opposite order every other round.

    Args:
        calls: by name; the first is what the others are compared with. A call must wait for its own result.
        warm_up: rounds that are not counted.
        rounds: rounds that are, at least 1.
        clock: in seconds.

    Returns:
        by name, in the order of `calls`.
    """
    assert calls
    assert rounds > 0
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(warm_up + rounds):
        for name, call in list(calls.items())[:: -1 if number % 2 else 1]:
            start = clock()
            call()
            end = clock()
            if number >= warm_up:
                seconds[name].append(end - start)
    times = {name: np.array(taken) for name, taken in seconds.items()}
    first = next(iter(times.values()))
    return {
        name: Latency(
            median_ms=1000 * float(np.median(taken)),
            p95_ms=1000 * float(np.percentile(taken, 95)),
            ratio=float(np.median(taken / first)),
            rounds=rounds,
        )
        for name, taken in times.items()
    }


def describe_cpu(text: str | None = None) -> str:
    """Return the CPU's model and which of the instructions it has that int8 needs.

    Args:
        text: of /proc/cpuinfo; None: this machine's.
    """
    if text is None:
        file = Path("/proc/cpuinfo")
        text = file.read_text() if file.exists() else ""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    has = [feature for feature in _FEATURES if feature in flags]
    return f"{fields.get('model name') or platform.machine()} ({', '.join(has) or 'features unknown'})"
