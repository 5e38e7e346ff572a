"""Schema of the data and augment groups."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from src.config.fields import (
    Count,
    Fraction,
    Positive,
    PositiveFraction,
    Strict,
    Text,
    bookkeeping,
)

Interpolation = Literal["bilinear", "bicubic"]
Triple = tuple[Fraction, Fraction, Fraction]
NamedSubset = Literal["tiny", "small", "medium", "large", "full"]
SUBSET_SIZES: dict[NamedSubset, int] = {"tiny": 1_000, "small": 10_000, "medium": 100_000, "large": 500_000}


class DataCommon(Strict):
    """What every source is asked for: sizes, filters, normalisation, subsets, and how it is loaded."""

    name: Text
    image_size: Count
    eval_image_size: Count
    resize_size: Count
    interpolation: Interpolation
    eval_interpolation: Interpolation
    mean: Triple
    std: tuple[PositiveFraction, PositiveFraction, PositiveFraction]
    subset: NamedSubset | Count
    val_subset: NamedSubset | Count
    engine: Literal["torchvision"]
    workers: Annotated[Literal["auto"] | Count, bookkeeping()]
    prefetch: Annotated[Count, bookkeeping()]

    @model_validator(mode="after")
    def _crop_fits(self) -> "DataCommon":
        if self.resize_size < self.eval_image_size:
            raise ValueError(
                f"data.resize_size={self.resize_size} is smaller than data.eval_image_size={self.eval_image_size}, "
                f"so the centre crop would not fit. Set data.resize_size={self.eval_image_size} or more."
            )
        return self


class FolderData(DataCommon):
    """ImageFolder: one folder a class."""

    source: Literal["folder"]
    path: Annotated[Text, bookkeeping()]
    train_path: Annotated[Text, bookkeeping()]
    val_path: Annotated[Text, bookkeeping()]
    cache_dir: Annotated[Text, bookkeeping()]


class SyntheticData(DataCommon):
    """Images made from their number."""

    source: Literal["synthetic"]
    num_train: Count
    num_val: Count
    num_classes: Annotated[Count, Field(ge=2)]
    stored_size: Annotated[Count, Field(ge=4, le=4096)]

    @model_validator(mode="after")
    def _enough_images(self) -> "SyntheticData":
        if self.num_train < self.num_classes:
            raise ValueError(
                f"data.num_train={self.num_train} is less than data.num_classes={self.num_classes}. "
                f"Set data.num_train={self.num_classes} or more."
            )
        return self


DataConfig = Annotated[FolderData | SyntheticData, Field(discriminator="source")]


class AugmentConfig(Strict):
    """The law of crops and flips (torchvision's RandomResizedCrop)."""

    name: Literal["standard", "none"]
    crop_scale: tuple[PositiveFraction, PositiveFraction]
    crop_ratio: tuple[Positive, Positive]
    flip_probability: Fraction

    @model_validator(mode="after")
    def _ordered(self) -> "AugmentConfig":
        wrong = [
            f"augment.{name}=[{low}, {high}] runs backwards. Write the smaller number first."
            for name, (low, high) in (("crop_scale", self.crop_scale), ("crop_ratio", self.crop_ratio))
            if low > high
        ]
        if wrong:
            raise ValueError("\n".join(wrong))
        return self
