"""Schema of the augment group: crops and flips, which the plan draws, and what happens to pixels on the device."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from src.config.fields import Count, Fraction, NonNegative, Positive, PositiveFraction, Strict, Text


class AugmentConfig(Strict):
    """One class for all: everything can be combined, and what is off is 0, 1 or none."""

    name: Text
    crop_scale: tuple[PositiveFraction, PositiveFraction]
    crop_ratio: tuple[Positive, Positive]
    flip_probability: Fraction
    repeats: Count
    operations: Literal["none", "rand_augment", "rand_augment_timm", "trivial_augment_wide"]
    num_operations: Count
    magnitude: NonNegative
    magnitude_std: NonNegative
    brightness: NonNegative
    contrast: NonNegative
    saturation: NonNegative
    hue: Annotated[float, Field(strict=True, ge=0, le=0.5)]
    erase_probability: Fraction
    erase_scale: tuple[PositiveFraction, PositiveFraction]
    erase_ratio: tuple[Positive, Positive]
    erase_with: Literal["mean", "noise"]
    mixup_alpha: NonNegative
    cutmix_alpha: NonNegative
    mix_probability: Fraction
    cutmix_share: Fraction

    @model_validator(mode="after")
    def _ordered(self) -> "AugmentConfig":
        ranges = {name: getattr(self, name) for name in ("crop_scale", "crop_ratio", "erase_scale", "erase_ratio")}
        wrong = [
            f"augment.{name}=[{low}, {high}] runs backwards. Write the smaller number first."
            for name, (low, high) in ranges.items()
            if low > high
        ]
        highest = {"rand_augment": 30, "rand_augment_timm": 10}.get(self.operations)
        if highest is not None and self.magnitude > highest:
            wrong.append(
                f"augment.magnitude={self.magnitude:g} is more than augment.operations={self.operations} knows. "
                f"Set augment.magnitude={highest} or less."
            )
        if self.operations == "rand_augment" and self.magnitude != int(self.magnitude):
            wrong.append(
                f"augment.magnitude={self.magnitude:g} is between two of the 31 bins of augment.operations=rand_augment. "
                f"Set augment.magnitude={round(self.magnitude)}."
            )
        if wrong:
            raise ValueError("\n".join(wrong))
        return self
