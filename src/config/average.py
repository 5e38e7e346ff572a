"""Schema of the average group: at which weights to evaluate."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from src.config.fields import Count, CountOrZero, Flag, InsideUnit, NonNegative, Positive, Strict


class EvaluateTrained(Strict):
    """Evaluate at the trained weights."""

    name: Literal["none"]


class AverageCommon(Strict):
    """Evaluate at other weights than are trained, with BatchNorm statistics that belong to them."""

    recalibrate_images: CountOrZero
    evaluate_trained: Flag


class EvaluateScheduleFree(AverageCommon):
    """Schedule-free's x."""

    name: Literal["schedule_free"]


class EmaKeys(Strict):
    """An exponential moving average, told by its half-life or by its decay an update."""

    half_life_steps: Positive | None
    decay: InsideUnit | None
    every_steps: Count
    decay_warmup: Flag
    start_epoch: NonNegative

    @model_validator(mode="after")
    def _one_of_both(self) -> "EmaKeys":
        decay, half_life = ("null" if value is None else f"{value:g}" for value in (self.decay, self.half_life_steps))
        if (self.half_life_steps is None) == (self.decay is None):
            raise ValueError(
                f"average.decay={decay} stands beside average.half_life_steps={half_life}. Give one of them, null for the other."
            )
        return self

    def decay_an_update(self) -> float:
        """Return what of the average is kept in an update."""
        if self.decay is not None:
            return self.decay
        assert self.half_life_steps is not None
        return float(2.0 ** (-self.every_steps / self.half_life_steps))


class SwaKeys(Strict):
    """The plain mean of the weights from an epoch on, and the rate from there on (null: the schedule's)."""

    swa_start_epoch: NonNegative
    swa_every_steps: Count | None
    swa_lr: Positive | None
    swa_anneal_epochs: NonNegative


class EvaluateEma(AverageCommon, EmaKeys):
    """Evaluate at an exponential moving average."""

    name: Literal["ema"]


class EvaluateSwa(AverageCommon, SwaKeys):
    """Evaluate at the trained weights until swa_start_epoch, then at their mean."""

    name: Literal["swa"]


class EvaluateEmaSwa(AverageCommon, EmaKeys, SwaKeys):
    """Evaluate at an exponential moving average until swa_start_epoch, then at the mean of the trained weights."""

    name: Literal["ema_swa"]


AverageConfig = Annotated[
    EvaluateTrained | EvaluateScheduleFree | EvaluateEma | EvaluateSwa | EvaluateEmaSwa, Field(discriminator="name")
]
