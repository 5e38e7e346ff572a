"""From the model's configuration to the model."""

import importlib
import sys
from pathlib import Path
from typing import assert_never, cast

from torch import nn

from src.config import ConfigError, Problem
from src.config.model import CustomModel, ModelConfig, SmallResNet, TorchvisionModel
from src.models import small_resnet

_AUXILIARY = {"googlenet", "inception_v3"}  # their auxiliary heads return a tuple in training


def build_model(config: ModelConfig, *, num_classes: int) -> nn.Module:
    """Build the classifier with fresh weights from torch's global generator.

    Raises:
        ConfigError: if a custom factory cannot be imported, fails, or returns something else.
    """
    match config:
        case TorchvisionModel():
            import torchvision  # two seconds, most of them for detection operators: only who needs it waits

            more = {"aux_logits": False, "init_weights": True} if config.arch in _AUXILIARY else {}
            return cast(nn.Module, torchvision.models.get_model(config.arch, weights=None, num_classes=num_classes, **more))
        case SmallResNet():
            return small_resnet.SmallResNet(
                depth=config.depth, width=config.width, num_classes=num_classes, stem_stride=config.stem_stride
            )
        case CustomModel():
            return _custom(config, num_classes)
        case _:
            assert_never(config)


def _custom(config: CustomModel, num_classes: int) -> nn.Module:
    module_name, _, attribute = config.factory.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
        model = factory(num_classes=num_classes, **config.kwargs)
    except Exception as error:
        fix = f"cannot be called as {attribute}(num_classes={num_classes}, **model.kwargs): {type(error).__name__}: {error}"
        raise ConfigError("the model", [Problem("model.factory", config.factory, fix)]) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(
            "the model", [Problem("model.factory", config.factory, f"returned {type(model).__name__}, no nn.Module.")]
        )
    return model
