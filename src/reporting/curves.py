"""Means over seeds, at the steps that all of them have."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from src.reporting.records import Epoch, Run, Window
from src.reporting.statistics import summarise

Array = NDArray[np.float64]


class _Stepped(Protocol):
    @property
    def step(self) -> int: ...


S = TypeVar("S", bound=_Stepped)


class Curve(NamedTuple):
    """A line with its spread.

    Attributes:
        x: (N,), rising; its unit is the caller's.
        mean: (N,).
        sd: (N,), the sample deviation; NaN where there is one run.
        n: runs.
    """

    x: Array
    mean: Array
    sd: Array
    n: int


def mean_curve(runs: Sequence[Run], x: Callable[[Run, Epoch], float], y: Callable[[Epoch], float]) -> Curve:
    """Return the mean over runs at each epoch that all of them have; x is a mean, too (hours differ)."""
    return _mean([[(row.step, x(run, row), y(row)) for row in run.epochs] for run in runs])


def mean_windows(runs: Sequence[Run], y: Callable[[Window], float], most: int) -> Curve:
    """Return the mean over runs at each logged step of all, in epochs; beyond `most` points neighbours are merged."""
    curve = _mean([[(row.step, row.step / run.steps_per_epoch, y(row)) for row in run.windows] for run in runs])
    return _merged(curve, most)


def _mean(lines: Sequence[Sequence[tuple[int, float, float]]]) -> Curve:
    tables = [{step: (x, y) for step, x, y in line if math.isfinite(x) and math.isfinite(y)} for line in lines]
    steps = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    xs = [summarise([table[step][0] for table in tables]).mean for step in steps]
    ys = [summarise([table[step][1] for table in tables]) for step in steps]
    mean, sd = [entry.mean for entry in ys], [entry.sd for entry in ys]
    return Curve(np.array(xs, float), np.array(mean, float), np.array(sd, float), len(tables))


def _merged(curve: Curve, most: int) -> Curve:
    if len(curve.x) <= most:
        return curve
    parts = [part for part in np.array_split(np.arange(len(curve.x)), most) if len(part)]
    x, mean, sd = (np.array([values[part].mean() for part in parts]) for values in (curve.x, curve.mean, curve.sd))
    return Curve(x, mean, sd, curve.n)
