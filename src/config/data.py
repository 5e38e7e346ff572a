"""Schema of the data group."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from src.config.fields import (
    Count,
    CountOrZero,
    Flag,
    Fraction,
    PositiveFraction,
    Strict,
    Text,
    bookkeeping,
)

Interpolation = Literal["bilinear", "bicubic"]
Triple = tuple[Fraction, Fraction, Fraction]
EngineName = Literal["auto", "torchvision", "nvimgcodec", "dali", "ffcv"]
EXACT_ENGINES = ("auto", "torchvision", "nvimgcodec")  # the same pixels, bit for bit, where the CPU decodes
NamedSubset = Literal["tiny", "small", "medium", "large", "full"]
SUBSET_SIZES: dict[NamedSubset, int] = {"tiny": 1_000, "small": 10_000, "medium": 100_000, "large": 500_000}


class DataCommon(Strict):
    """What every source is asked for: sizes, filters, normalisation, subsets, and how it is loaded."""

    name: Text
    image_size: Count
    ramp_from_size: Count | None
    ramp_from_epoch: CountOrZero
    ramp_to_epoch: CountOrZero
    ramp_multiple: Count
    eval_image_size: Count
    resize_size: Count
    interpolation: Interpolation
    eval_interpolation: Interpolation
    mean: Triple
    std: tuple[PositiveFraction, PositiveFraction, PositiveFraction]
    subset: NamedSubset | Count
    val_subset: NamedSubset | Count
    engine: EngineName
    decoder: Literal["cpu", "gpu"]
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

    @model_validator(mode="after")
    def _ramp_rises(self) -> "DataCommon":
        problems = []
        if self.ramp_from_size is not None and self.ramp_from_size > self.image_size:
            problems.append(
                f"data.ramp_from_size={self.ramp_from_size} is more than data.image_size={self.image_size}, where the ramp ends. "
                f"Set data.ramp_from_size={self.image_size} or less, or null."
            )
        if self.ramp_from_epoch > self.ramp_to_epoch:
            problems.append(
                f"data.ramp_from_epoch={self.ramp_from_epoch} comes after data.ramp_to_epoch={self.ramp_to_epoch}. "
                f"Set data.ramp_from_epoch={self.ramp_to_epoch} or less."
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @model_validator(mode="after")
    def _engine_can(self) -> "DataCommon":
        problems = []
        if self.engine == "ffcv" and getattr(self, "source", None) != "beton":
            problems.append(
                "data.engine=ffcv reads .beton files only. Write them with python -m src.ffcv_writer and use data=ffcv, "
                "or set data.engine=auto."
            )
        if self.engine == "ffcv" and "bicubic" in (self.interpolation, self.eval_interpolation):
            key = "interpolation" if self.interpolation == "bicubic" else "eval_interpolation"
            problems.append(
                f"data.{key}=bicubic cannot be had from data.engine=ffcv, which resizes with OpenCV's area filter. "
                f"Set data.engine=auto, which reads the same file, or data.{key}=bilinear."
            )
        if self.decoder == "gpu" and self.engine in ("torchvision", "ffcv"):
            problems.append(
                f"data.decoder=gpu does not fit data.engine={self.engine}, which decodes on the CPU. "
                "Set data.engine=nvimgcodec or dali, or data.decoder=cpu."
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self


class StoredData(DataCommon):
    """What every source of files is asked for: where they are, where they go, and what a bad image means."""

    path: Annotated[Text, bookkeeping()]
    train_path: Annotated[Text, bookkeeping()]
    val_path: Annotated[Text, bookkeeping()]
    cache_dir: Annotated[Text, bookkeeping()]
    copy_to: Annotated[Text | None, bookkeeping()]
    in_memory: Annotated[Flag, bookkeeping()]
    bad_image: Literal["raise", "replace"]
    max_bad_images: Count


class FolderData(StoredData):
    """ImageFolder: one folder a class."""

    source: Literal["folder"]


class BetonData(StoredData):
    """FFCV's file. num_classes serves files that have no class names beside them."""

    source: Literal["beton"]
    num_classes: Annotated[Count, Field(ge=2)] | None


class ParquetData(StoredData):
    """Hugging Face's image layout; the paths may hold *."""

    source: Literal["parquet"]


class TarData(StoredData):
    """ImageNet's official tars, a tar of class folders, or WebDataset shards; the paths may hold *."""

    source: Literal["tar"]
    devkit_path: Annotated[Text, bookkeeping()]


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


DataConfig = Annotated[FolderData | BetonData | ParquetData | TarData | SyntheticData, Field(discriminator="source")]
