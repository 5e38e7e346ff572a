"""From the model's configuration to the model."""

import importlib
import sys
from pathlib import Path
from typing import assert_never, cast

import torch
from torch import nn

from src.config import ConfigError, Problem
from src.config.model import CustomModel, ModelConfig, SmallResNet, TimmModel, TorchvisionModel
from src.models import small_resnet
from src.models.head import set_prior

_AUXILIARY = {"googlenet", "inception_v3"}  # their auxiliary heads return a tuple in training


def build_model(config: ModelConfig, *, num_classes: int) -> nn.Module:
    """Build the classifier with fresh weights from torch's global generator, and do to it what the configuration asks.

    It works under `torch.device("meta")` too, and then draws nothing. What is done to a model never changes the names in its state
    dict, so that `model.weights` fits with and without.

    Raises:
        ConfigError: if timm has no such model, if a custom factory cannot be imported, fails, or returns something else, and with
            every change that the model has no parts for.
    """
    if torch.get_default_device().type != "meta":
        return _build(config, num_classes)
    try:
        return _build(config, num_classes)
    except Exception as error:
        if isinstance(error, ConfigError) and not isinstance(config, CustomModel):
            raise
    # Some compute their shapes with tensors (torchvision's RegNet), for which meta has no numbers.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        return _build(config, num_classes).to("meta")


def _build(config: ModelConfig, num_classes: int) -> nn.Module:
    match config:
        case TorchvisionModel():
            import torchvision  # two seconds, most of them for detection operators: only who needs it waits

            more = {"aux_logits": False, "init_weights": True} if config.arch in _AUXILIARY else {}
            model = cast(nn.Module, torchvision.models.get_model(config.arch, weights=None, num_classes=num_classes, **more))
            what = f"torchvision's {config.arch}"
        case TimmModel():
            from src.models.timm_model import build_timm  # three seconds

            model, what = build_timm(config, num_classes=num_classes), f"timm's {config.arch}"
        case SmallResNet():
            model = small_resnet.SmallResNet(
                depth=config.depth, width=config.width, num_classes=num_classes, stem_stride=config.stem_stride
            )
            what = "small_resnet"
        case CustomModel():
            model, what = _custom(config, num_classes), config.factory
        case _:
            assert_never(config)
    _change(model, config, what, num_classes)
    return model


def _change(model: nn.Module, config: ModelConfig, what: str, num_classes: int) -> None:
    """Do everything that is asked, in place, or raise with everything that cannot be done."""
    problems = []
    as_built = isinstance(config, TimmModel)  # timm builds its models with both
    if config.zero_init_residual is not None and not as_built:
        from src.models.zero_init import set_residual_init

        if not set_residual_init(model, zero=config.zero_init_residual):
            fix = f"{what} has no residual branches that end in a norm, as ResNets have. Set null."
            problems.append(Problem("model.zero_init_residual", config.zero_init_residual, fix))
    if config.drop_path is not None and not as_built:
        from src.models.drop_path import set_drop_path

        if not set_drop_path(model, config.drop_path) and config.drop_path:
            fix = f"{what} has no stochastic depth, and is no ResNet that could be given it. Set null, or see model=timm/..."
            problems.append(Problem("model.drop_path", config.drop_path, fix))
    if config.blur_pool != "none":
        from src.models.blur_pool import blur

        if not blur(model, max_pools=config.blur_pool == "convs_and_max_pool"):
            fix = f"{what} has no strided convolution of 16 or more channels, and no max-pool that was to be blurred. Set none."
            problems.append(Problem("model.blur_pool", config.blur_pool, fix))
    if config.prior_bias and not set_prior(model, num_classes=num_classes):
        problems.append(Problem("model.prior_bias", True, f"{what} ends in no layer with a bias. Set false."))
    if config.gradient_checkpointing:  # last: around everything else
        from src.models.checkpointing import checkpoint_blocks

        if not checkpoint_blocks(model):
            fix = f"{what} is no stack of blocks that could be computed twice. Set false."
            problems.append(Problem("model.gradient_checkpointing", True, fix))
    if problems:
        raise ConfigError("the model", problems)


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
