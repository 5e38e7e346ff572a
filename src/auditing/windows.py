"""Which steps are replayed: random windows after kept checkpoints."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from src.auditing.record import RunRecord, State


class Window(NamedTuple):
    """What is replayed: from a kept checkpoint on, every step to the last one.

    Attributes:
        start: the checkpoint.
        last: the last step that is trained; that of the checkpoint where only its evaluation is replayed.
    """

    start: State
    last: int

    def __str__(self) -> str:
        """Return it for people."""
        first = self.start.step
        what = f"steps {first + 1:,}-{self.last:,}" if self.last > first else f"the evaluation at step {first:,}"
        return f"{what} from {self.start.names[0]}"


def stretches(record: RunRecord) -> list[tuple[State, int]]:
    """Return each kept checkpoint that something follows, with the step up to which it is the nearest one before.

    A later checkpoint's steps are replayed from there. Of two states of one step (before and after its evaluation) the first is
    taken for the evaluation, too.
    """
    end = int(record.ledger["step"][-1])
    firsts: dict[int, State] = {}
    for each in record.states:
        firsts.setdefault(each.step, each)
    ordered = [firsts[step] for step in sorted(firsts)]
    ends = [later.step for later in ordered[1:]] + [end]
    evaluated = {row["step"] for row in record.metrics if "val/acc1" in row}
    return [
        (state, last)
        for state, last in zip(ordered, ends, strict=True)
        if last > state.step or (not state.recorded and state.step in evaluated)
    ]


def replayable(record: RunRecord) -> int:
    """Return how many steps come after some kept checkpoint."""
    return sum(last - state.step for state, last in stretches(record))


def choose(record: RunRecord, *, windows: int, steps: int, reach: int | None, seed: int) -> list[Window]:
    """Choose windows at random, each step that may be in one with the same chance of beginning one.

    What two windows from one checkpoint share is replayed once. A window goes on over the next checkpoint.

    Args:
        record: what the folder claims.
        windows: how many.
        steps: a window's length.
        reach: how many steps after the checkpoint a window may begin; None: any number.
        seed: of the choice.
    """
    end = int(record.ledger["step"][-1])
    places: list[tuple[State, int]] = []  # where a window may begin: after so many steps
    for state, last in stretches(record):
        latest = last if reach is None else min(last, state.step + reach + 1)
        places += [(state, begin) for begin in range(state.step, max(latest, state.step + 1))]
    chosen = random.Random(seed).sample(places, min(windows, len(places)))
    longest: dict[int, Window] = {}
    for state, begin in chosen:
        window = Window(state, min(begin + steps, end))
        known = longest.get(state.step)
        if known is None or known.last < window.last:
            longest[state.step] = window
    return [longest[step] for step in sorted(longest)]


def covered(windows: Sequence[Window]) -> int:
    """Return how many different steps windows replay."""
    return len({step for window in windows for step in range(window.start.step + 1, window.last + 1)})
