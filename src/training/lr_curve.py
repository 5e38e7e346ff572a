"""A learning-rate range test as numbers (Smith 2017, arXiv:1506.01186): the course of the rate, the loss, what it suggests.

Pure: no model and no device.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.config.lr_finder import LrRange

Ended = Literal["at end_lr", "diverged", "not finite"]
_WINDOW_DECADES = 1.0  # a slope is that of the line through the losses of a tenfold growth of the rate
_LEAST_POINTS = 5


class Point(NamedTuple):
    """One step.

    Attributes:
        lr: of the step's update.
        loss: mean over the step's images on all ranks, before the update.
        average: bias-corrected moving average of the losses up to here, by which divergence is judged.
    """

    lr: float
    loss: float
    average: float


class Curve(NamedTuple):
    """One range as it was searched.

    Attributes:
        range: what was asked for.
        points: the steps with a finite loss.
        smoothed: the losses without lag, one for each point (see `smooth`).
        ended: why there are no more.
    """

    range: LrRange
    points: tuple[Point, ...]
    smoothed: tuple[float, ...]
    ended: Ended


class Suggestion(NamedTuple):
    """What a curve suggests.

    Attributes:
        steepest: the rate at which the loss falls fastest, per decade of the rate.
        tenth_of_minimum: a tenth of the rate at which the smoothed loss is least.
        reason: why there is none, in words; empty where there are both.
    """

    steepest: float | None
    tenth_of_minimum: float | None
    reason: str


def lr_of(within: LrRange, k: int) -> float:
    """Return the rate of step k < num_iter: start_lr * (end_lr / start_lr)^(k / (num_iter - 1)), exact at both ends."""
    last = within.num_iter - 1
    return within.end_lr if k == last else within.start_lr * float((within.end_lr / within.start_lr) ** (k / last))


class MovingAverage:
    """m <- (1 - share) m + share * loss, divided by 1 - (1 - share)^n: Adam's correction for the start at 0."""

    def __init__(self, share: float) -> None:
        self._share, self._sum, self._weight = share, 0.0, 0.0

    def add(self, loss: float) -> float:
        """Take a loss and return the average up to it."""
        self._sum += self._share * (loss - self._sum)
        self._weight += self._share * (1 - self._weight)
        return self._sum / self._weight


def smooth(losses: Sequence[float], share: float) -> tuple[float, ...]:
    """Return the moving average of the moving average, taken from the end to the beginning.

    A moving average alone lags behind by (1 - share) / share steps: with the usual 0.05 and 100 steps over eight decades that is a
    decade and a half, by which a minimum would be seen too late. Taken both ways it does not lag. Each way takes twice the share
    (at most 1), so that both together smooth about as much.
    """
    both = min(1.0, 2 * share)
    forward, backward = MovingAverage(both), MovingAverage(both)
    once = [forward.add(loss) for loss in losses]
    return tuple(backward.add(loss) for loss in reversed(once))[::-1]


def suggest(curve: Curve, *, skip_first: int, skip_last: int) -> Suggestion:
    """Read the rates to begin with from a curve.

    Args:
        curve: from the search.
        skip_first: points at the beginning that are not looked at.
        skip_last: and at the end.
    """
    used = slice(skip_first, len(curve.points) - skip_last)
    points, smoothed = curve.points[used], np.array(curve.smoothed[used])
    if len(points) < _LEAST_POINTS:
        many = f"{len(curve.points)} of {curve.range.num_iter} steps had a finite loss before it {_ENDED[curve.ended]}"
        return Suggestion(None, None, f"no suggestion: {many}. Lower start_lr.")
    rates = np.log10([point.lr for point in points])
    lowest = int(smoothed.argmin())
    beginning = [point.loss for point in curve.points[: max(skip_first, _LEAST_POINTS)]]
    if float(np.median(beginning)) - smoothed[lowest] <= _noise([point.loss for point in points]):
        return Suggestion(None, None, f"no suggestion: the loss never fell below the {np.median(beginning):.4g} it began with.")
    slopes = _slopes(rates, np.array([point.loss for point in points]))
    steepest = int(slopes[: lowest + 1].argmin())  # what falls after the minimum is noise, or a recovery
    return Suggestion(points[steepest].lr, points[lowest].lr / 10, "")


_ENDED = {"at end_lr": "reached end_lr", "diverged": "diverged", "not finite": "was not finite any more"}


def _slopes(rates: NDArray[np.float64], losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return at each point the slope of the least-squares line through the losses within half a window on both sides.

    Args:
        rates: float64 (N,), decades.
        losses: float64 (N,), as they were measured: the line is all the smoothing.
    """
    slopes = np.empty(len(rates))
    for place, rate in enumerate(rates):
        near = np.abs(rates - rate) <= _WINDOW_DECADES / 2
        near[max(0, place - 1) : place + 2] = True  # a range of few steps: at least the neighbours
        centred = rates[near] - rates[near].mean()
        slopes[place] = centred @ losses[near] / (centred @ centred)
    return slopes


def _noise(losses: Sequence[float]) -> float:
    """Return a single loss's deviation about its course, from the median difference of neighbours, which a trend hardly moves."""
    return float(1.4826 * np.median(np.abs(np.diff(losses))) / np.sqrt(2))
