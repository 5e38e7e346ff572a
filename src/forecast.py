"""What a run takes, from what was measured: seconds, hours and money, with how far each may be off. Arithmetic alone."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from src.timing import Pace
from src.trial import Trial

# Student's t for 95 %, two-sided, by degrees of freedom (any table; scipy.stats.t.ppf(0.975, n)).
_T = (math.inf, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_AT_LEAST = 0.03  # nothing is known better: hours bring other temperatures, clocks and neighbours than seconds
_ONCE = 0.3  # what was measured once, and cannot be told from chance
_BOUND_BY_DATA = 0.2  # share of the time, waited for data, from which the loader is what to look at

Bound = Literal["data", "compute"]


class Part(NamedTuple):
    """What is expected, and between what it may lie. Seconds, or what they are multiplied to."""

    expected: float
    least: float
    most: float

    def __add__(self, other: object) -> "Part":
        """Add both: what is off is taken to be off the same way in every part."""
        assert isinstance(other, Part)
        return Part(*(ours + theirs for ours, theirs in zip(self, other, strict=True)))

    def __mul__(self, times: object) -> "Part":
        """Take it so many times."""
        assert isinstance(times, int | float)
        return Part(*(value * times for value in self))


class Amounts(NamedTuple):
    """What is repeated how often in a run.

    Attributes:
        steps_at: how many training steps it has, by image size.
        epochs: in all.
        evaluations: in all.
        evaluated_images: in each, twice the split's where two sets of weights are evaluated.
        recalibration_steps: training steps' worth of images from which an average's statistics are gathered, in each.
        saves: in all.
    """

    steps_at: Mapping[int, int]
    epochs: int
    evaluations: int
    evaluated_images: int
    recalibration_steps: float
    saves: int


class Forecast(NamedTuple):
    """What a run takes, a part each.

    Attributes:
        start: until the first step is done.
        training: the steps.
        evaluation: all evaluations.
        saving: that training stands still for checkpoints.
        epochs: in all.
    """

    start: Part
    training: Part
    evaluation: Part
    saving: Part
    epochs: int

    @property
    def total(self) -> Part:
        """From the command to its end."""
        return self.start + self.training + self.evaluation + self.saving

    @property
    def epoch(self) -> Part:
        """The mean of one epoch, evaluation and checkpoints included."""
        return (self.training + self.evaluation + self.saving) * (1 / self.epochs)


def forecast(amounts: Amounts, trial: Trial, *, flops: Mapping[int, float], started_seconds: float) -> Forecast:
    """Put the parts together.

    Args:
        amounts: how often what is done.
        trial: what was measured.
        flops: forward FLOPs an image by image size: sizes between two measured ones are placed by them.
        started_seconds: that this process took until it was ready to train.
    """
    steps = [a_step(trial.paces, size, flops) * number for size, number in amounts.steps_at.items()]
    training = sum(steps, Part(0.0, 0.0, 0.0))
    mean_step = training * (1 / sum(amounts.steps_at.values()))
    evaluation = spread(trial.evaluation) * amounts.evaluated_images + mean_step * amounts.recalibration_steps
    first = sum(max(0.0, pace.first_seconds - pace.seconds) for pace in trial.paces)
    start = started_seconds + first
    return Forecast(
        start=Part(start, (1 - _ONCE) * start, (1 + _ONCE) * start),
        training=training,
        evaluation=evaluation * amounts.evaluations,
        saving=Part(trial.save_seconds, 0.0, 2 * trial.save_seconds) * amounts.saves,
        epochs=amounts.epochs,
    )


def a_step(paces: Sequence[Pace], image_size: int, flops: Mapping[int, float]) -> Part:
    """Return a step at an image size: as measured, or on the line through the two measured ones over FLOPs.

    A line has room for what does not grow with the image, such as reading and decoding it, where plain scaling has not.
    """
    low, high = paces[0], paces[-1]
    at_low, at_high = spread(low.windows), spread(high.windows)
    if low.image_size == high.image_size or flops[low.image_size] == flops[high.image_size]:
        return at_high
    share = (flops[image_size] - flops[low.image_size]) / (flops[high.image_size] - flops[low.image_size])
    return at_low * (1 - share) + at_high * share  # 0 <= share <= 1: FLOPs grow with the size


def spread(windows: Sequence[float]) -> Part:
    """Return the mean of the windows, and between what the mean of as many further windows lies (95 %, were they independent).

    Never less than 3 % to either side, and never faster than the fastest window less 3 %: a machine has hiccups, but no wings.
    30 % where there is one window only.
    """
    mean, number = statistics.fmean(windows), len(windows)
    if number == 1:
        return Part(mean, (1 - _ONCE) * mean, (1 + _ONCE) * mean)
    off = max(_T[min(number - 1, len(_T) - 1)] * statistics.stdev(windows) * math.sqrt(2 / number), _AT_LEAST * mean)
    return Part(mean, max(mean - off, (1 - _AT_LEAST) * min(windows)), mean + off)


def bound_by(trial: Trial) -> Bound:
    """Return what limits training, at the largest image size: a loader that keeps up is hardly ever waited for."""
    return "data" if trial.paces[-1].waiting >= _BOUND_BY_DATA else "compute"


def saves_of(*, total_steps: int, steps_per_epoch: int, evaluated_epochs: Sequence[int], save_every_steps: int) -> int:
    """Count the checkpoints of a run: every so many steps, and before and after each evaluation.

    Args:
        total_steps: of the run.
        steps_per_epoch: of it.
        evaluated_epochs: how many epochs are done when it evaluates.
        save_every_steps: as configured.
    """
    at_evaluations = {epoch * steps_per_epoch for epoch in evaluated_epochs}
    regular = set(range(save_every_steps, total_steps + 1, save_every_steps))
    return len(regular | at_evaluations) + len(at_evaluations)
