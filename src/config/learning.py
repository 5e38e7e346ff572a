"""Schema of the model, optim, schedule and average groups: what learns, and how."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from src.config.errors import did_you_mean
from src.config.fields import BelowOne, Count, Flag, InsideUnit, NonNegative, Positive, PositiveFraction, Strict, Text
from src.config.torchvision_models import CLASSIFIERS

Betas = tuple[BelowOne, BelowOne]


class TorchvisionModel(Strict):
    """A classifier of torchvision.models, by name."""

    name: Literal["torchvision"]
    arch: Text

    @field_validator("arch")
    @classmethod
    def _known(cls, arch: str) -> str:
        if arch not in CLASSIFIERS:
            raise ValueError(
                f"torchvision has no classifier of this name.{did_you_mean(arch, CLASSIFIERS)} "
                "For your own model: model=custom model.factory=my_module:build."
            )
        return arch


class SmallResNet(Strict):
    """The CIFAR ResNet, depth 6n + 2."""

    name: Literal["small_resnet"]
    depth: Count
    width: Count
    stem_stride: Literal[1, 2]

    @field_validator("depth")
    @classmethod
    def _whole_blocks(cls, depth: int) -> int:
        if depth < 8 or (depth - 2) % 6:
            nearest = max(8, round((depth - 2) / 6) * 6 + 2)
            raise ValueError(f"a depth is 6n + 2: 8, 14, 20, ... Nearest: {nearest}.")
        return depth


class CustomModel(Strict):
    """A factory in a module beside the project."""

    name: Literal["custom"]
    factory: Text
    kwargs: dict[str, JsonValue]

    @field_validator("factory")
    @classmethod
    def _dotted(cls, factory: str) -> str:
        module, _, attribute = factory.partition(":")
        if not module or not attribute.isidentifier():
            raise ValueError("write module:function, such as my_module:build.")
        return factory


ModelConfig = Annotated[TorchvisionModel | SmallResNet | CustomModel, Field(discriminator="name")]


class OptimCommon(Strict):
    """What every optimizer has. The rate is the configured peak, for the global batch."""

    peak_lr: Positive
    weight_decay: NonNegative
    decay_norms_and_biases: Flag


class Sgd(OptimCommon):
    """torch.optim.SGD."""

    name: Literal["sgd"]
    momentum: BelowOne
    nesterov: Flag

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "Sgd":
        if self.nesterov and self.momentum == 0:
            raise ValueError("optim.nesterov=true needs optim.momentum > 0. Set optim.momentum=0.9 or optim.nesterov=false.")
        return self


class Adam(OptimCommon):
    """torch.optim.Adam, coupled weight decay."""

    name: Literal["adam"]
    betas: Betas
    eps: Positive


class AdamW(OptimCommon):
    """torch.optim.AdamW, decoupled weight decay."""

    name: Literal["adamw"]
    betas: Betas
    eps: Positive


class ScheduleFreeSgd(OptimCommon):
    """schedulefree.SGDScheduleFree."""

    name: Literal["sf_sgd"]
    momentum: InsideUnit
    r: NonNegative
    weight_lr_power: NonNegative


class ScheduleFreeAdamW(OptimCommon):
    """schedulefree.AdamWScheduleFree."""

    name: Literal["sf_adamw"]
    betas: tuple[InsideUnit, BelowOne]
    eps: Positive
    r: NonNegative
    weight_lr_power: NonNegative


OptimConfig = Annotated[Sgd | Adam | AdamW | ScheduleFreeSgd | ScheduleFreeAdamW, Field(discriminator="name")]


class ScheduleCommon(Strict):
    """Linear warm-up from warmup_from x peak_lr."""

    warmup_epochs: NonNegative
    warmup_from: PositiveFraction


class Cosine(ScheduleCommon):
    """Cosine by step down to floor x peak_lr."""

    name: Literal["cosine"]
    floor: BelowOne


class Constant(ScheduleCommon):
    """peak_lr after the warm-up."""

    name: Literal["constant"]


ScheduleConfig = Annotated[Cosine | Constant, Field(discriminator="name")]


class EvaluateTrained(Strict):
    """Evaluate at the trained weights."""

    name: Literal["none"]


class EvaluateScheduleFree(Strict):
    """Evaluate at schedule-free's x, with BatchNorm statistics that belong to it."""

    name: Literal["schedule_free"]
    recalibrate_images: Count


AverageConfig = Annotated[EvaluateTrained | EvaluateScheduleFree, Field(discriminator="name")]
