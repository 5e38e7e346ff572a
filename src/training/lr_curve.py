"""A learning-rate range test as numbers (Smith 2017, arXiv:1506.01186): the course of the rate, the loss, what it suggests.

Pure: no model and no device.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.config.lr_finder import LrRange

Ended = Literal["at end_lr", "diverged", "not finite"]
_LEAST_POINTS = 5
_FALL = 3.0  # deviations of a single loss: noise alone falls by less, also where a line is fitted to two or three points


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
        ended: why there are no more.
    """

    range: LrRange
    points: tuple[Point, ...]
    ended: Ended


class Suggestion(NamedTuple):
    """What a curve suggests.

    Attributes:
        smoothed: the losses' course, one value for each point.
        steepest: the rate at which that course falls fastest, per decade of the rate.
        tenth_of_minimum: a tenth of the rate at which it is lowest.
        remark: why no rate is suggested, or what to know of those that are; empty where all is well.
    """

    smoothed: tuple[float, ...]
    steepest: float | None
    tenth_of_minimum: float | None
    remark: str


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


def suggest(curve: Curve, *, skip_first: int, skip_last: int, window_decades: float) -> Suggestion:
    """Smooth a curve, and read from it the rates to begin with.

    A moving average lags behind by (1 - share) / share steps: with the usual 0.05 and 100 steps over eight decades by a decade
    and a half. So the course is made of straight lines instead, each fitted to the losses around its point; their slopes are the
    gradient. A loss counts as no more than first + (first - least): how far it explodes says nothing about the rates below.

    Args:
        curve: from the search.
        skip_first: points at the beginning at which nothing is suggested.
        skip_last: and at the end.
        window_decades: the width of what a line is fitted to for its slope; half of it for the course's height.
    """
    losses = np.array([point.loss for point in curve.points])
    if len(losses) - skip_first - skip_last < _LEAST_POINTS:
        many = f"the loss {_ENDED[curve.ended]} after {len(losses)} of {curve.range.num_iter} steps"
        return Suggestion(tuple(losses.tolist()), None, None, f"{many}: too few to suggest a rate. Lower start_lr.")
    beginning = float(np.median(losses[: max(skip_first, _LEAST_POINTS)]))
    rates = np.log10([point.lr for point in curve.points])
    losses = np.minimum(losses, 2 * beginning - losses.min())
    course, _ = local_lines(rates, losses, window_decades / 2)  # a height needs less to be sure than a slope, and is sharper so
    _, slopes = local_lines(rates, losses, window_decades)
    smoothed = tuple(course.tolist())
    after = len(losses) - skip_last
    lowest = skip_first + int(course[skip_first:after].argmin())
    if beginning - course[lowest] <= _FALL * _deviation(losses[: max(lowest + 1, _LEAST_POINTS)]):
        remark = f"the loss never fell clearly below the {beginning:.4g} that it began with: no rate is suggested."
        return Suggestion(smoothed, None, None, remark)
    steepest = skip_first + int(slopes[skip_first : lowest + 1].argmin())  # a fall after the minimum is a recovery
    falls = lowest == after - 1 and curve.ended == "at end_lr"
    remark = "the loss still fell at end_lr: a higher end_lr may suggest a higher rate." if falls else ""
    return Suggestion(smoothed, curve.points[steepest].lr, curve.points[lowest].lr / 10, remark)


_ENDED = {"at end_lr": "ended", "diverged": "diverged", "not finite": "was not finite any more"}


def local_lines(
    places: NDArray[np.float64], values: NDArray[np.float64], width: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit a line by least squares to what lies within half a width of each place, and return its height and slope there.

    Args:
        places: float64 (N,), rising, N >= 2.
        values: float64 (N,).
        width: the neighbours on both sides are taken in any case.

    Returns:
        float64 (N,) heights and (N,) slopes.
    """
    count, index = len(places), np.arange(len(places))
    first = np.minimum(np.searchsorted(places, places - width / 2), np.maximum(index - 1, 0))
    after = np.maximum(np.searchsorted(places, places + width / 2, side="right"), np.minimum(index + 2, count))
    x, y = places - places.mean(), values - values.mean()
    sums = np.cumsum(np.stack([np.ones(count), x, y, x * x, x * y]), axis=1)
    n, of_x, of_y, of_xx, of_xy = sums[:, after - 1] - np.where(first > 0, sums[:, first - 1], 0.0)
    slopes = (of_xy - of_x * of_y / n) / (of_xx - of_x * of_x / n)
    return values.mean() + of_y / n + slopes * (x - of_x / n), slopes


def _deviation(losses: NDArray[np.float64]) -> float:
    """Return a single loss's deviation about its course, from the median difference of neighbours, which a trend hardly moves."""
    return float(1.4826 * np.median(np.abs(np.diff(losses))) / np.sqrt(2))
