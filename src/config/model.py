"""Schema of the model group: which classifier, and what is done to it."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator

from src.config.errors import did_you_mean
from src.config.fields import BelowOne, Count, Flag, Strict, Text
from src.config.torchvision_models import CLASSIFIERS


class ModelCommon(Strict):
    """What can be done to every classifier that has the parts for it."""

    blur_pool: Literal["none", "convs", "convs_and_max_pool"]
    zero_init_residual: Flag | None
    prior_bias: Flag
    drop_path: BelowOne | None
    gradient_checkpointing: Flag
    weights: Text | None


class TorchvisionModel(ModelCommon):
    """A classifier of torchvision.models, by name."""

    name: Literal["torchvision"]
    arch: Text

    @field_validator("arch")
    @classmethod
    def _known(cls, arch: str) -> str:
        if arch not in CLASSIFIERS:
            raise ValueError(
                f"torchvision has no classifier of this name.{did_you_mean(arch, CLASSIFIERS)} "
                f"For timm's: model=timm/{arch}. For your own model: model=custom model.factory=my_module:build."
            )
        return arch


class TimmModel(ModelCommon):
    """A classifier of timm, by name; timm itself knows which there are, when the model is built."""

    name: Literal["timm"]
    arch: Text


class SmallResNet(ModelCommon):
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


class CustomModel(ModelCommon):
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


ModelConfig = Annotated[TorchvisionModel | TimmModel | SmallResNet | CustomModel, Field(discriminator="name")]
