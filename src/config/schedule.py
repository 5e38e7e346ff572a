"""Schema of the schedule group: lr_factor, the multiplier of the peak rate, over the run."""

from typing import Annotated, Literal

from pydantic import Field

from src.config.fields import BelowOne, Flag, NonNegative, Positive, PositiveFraction, Strict


class ScheduleCommon(Strict):
    """A warm-up from warmup_from x the peak rate; then the schedule's own course. By step, or one value an epoch."""

    by: Literal["step", "epoch"]
    warmup_epochs: NonNegative
    warmup_from: PositiveFraction


class Constant(ScheduleCommon):
    """The peak rate after the warm-up."""

    name: Literal["constant"]


class Cosine(ScheduleCommon):
    """Half a cosine down to floor x the peak rate; counted from the warm-up's end, or from the run's beginning as timm does.

    Between warm-up and cosine the peak rate can be held: NVIDIA's warm-up (epoch + 1) / n reaches it an epoch before its end.
    """

    name: Literal["cosine"]
    hold_epochs: NonNegative
    floor: BelowOne
    counts_warmup: Flag


class OneCycle(ScheduleCommon):
    """torch.optim.lr_scheduler.OneCycleLR: half a cosine up during the warm-up, half a cosine down to floor x the peak rate."""

    name: Literal["one_cycle"]
    floor: BelowOne


class Triangular(ScheduleCommon):
    """A straight line up during the warm-up and a straight line down to floor x the peak rate."""

    name: Literal["triangular"]
    floor: BelowOne


class Step(ScheduleCommon):
    """Times gamma every so many epochs after the warm-up, not below floor x the peak rate."""

    name: Literal["step"]
    every_epochs: Positive
    gamma: PositiveFraction
    floor: BelowOne


class Polynomial(ScheduleCommon):
    """(1 - progress)^power, down to floor x the peak rate."""

    name: Literal["polynomial"]
    power: Positive
    floor: BelowOne


class Exponential(ScheduleCommon):
    """Times gamma an epoch after the warm-up, not below floor x the peak rate."""

    name: Literal["exponential"]
    gamma: PositiveFraction
    floor: BelowOne


ScheduleConfig = Annotated[Constant | Cosine | OneCycle | Triangular | Step | Polynomial | Exponential, Field(discriminator="name")]
