"""timm's classifiers by name; timm itself knows which there are and what they can do."""

import inspect
from typing import Any, cast

import timm
from torch import nn

from src.config import ConfigError, Problem
from src.config.errors import did_you_mean
from src.config.model import TimmModel


def build_timm(config: TimmModel, *, num_classes: int) -> nn.Module:
    """Build a classifier of timm with fresh weights, its stochastic depth, and its residual branches' beginning.

    Stochastic depth is timm's `drop_path_rate`, zero-init is timm's `zero_init_last`: their rules are the model's own.

    Raises:
        ConfigError: if timm has no such model, or the model has no parts for what is asked.
    """
    if not timm.is_model(config.arch):
        fix = f"timm {timm.__version__} has no model of this name.{did_you_mean(config.arch, timm.list_models())}"
        raise ConfigError("the model", [Problem("model.arch", config.arch, fix)])
    wanted: dict[str, Any] = {}
    if config.drop_path is not None:
        wanted["drop_path_rate"] = config.drop_path
    if config.zero_init_residual is not None:
        wanted["zero_init_last"] = config.zero_init_residual
    refused: list[str] = []
    model = _create(config.arch, num_classes, wanted, refused)
    if config.drop_path and not any(getattr(module, "drop_prob", 0.0) for module in model.modules()):
        refused.append("drop_path_rate")  # accepted and ignored
    if "zero_init_last" in wanted and "zero_init_last" not in inspect.signature(type(model).__init__).parameters:
        refused.append("zero_init_last")
    problems = []
    if "drop_path_rate" in refused and config.drop_path:
        problems.append(Problem("model.drop_path", config.drop_path, f"timm's {config.arch} has no stochastic depth. Set null."))
    if "zero_init_last" in refused:
        fix = f"timm's {config.arch} has no residual branches whose last norm can begin at a value. Set null."
        problems.append(Problem("model.zero_init_residual", config.zero_init_residual, fix))
    if problems:
        raise ConfigError("the model", problems)
    return model


def _create(arch: str, num_classes: int, wanted: dict[str, Any], refused: list[str]) -> nn.Module:
    """Create the model with those arguments that it takes; the others are added to `refused`."""
    arguments = dict(wanted)
    while True:
        try:
            return cast(nn.Module, timm.create_model(arch, pretrained=False, num_classes=num_classes, **arguments))
        except TypeError as error:
            unknown = next((name for name in arguments if name in str(error)), None)
            if unknown is None:
                raise
            refused.append(unknown)
            del arguments[unknown]
