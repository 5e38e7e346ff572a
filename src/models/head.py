"""The layers that end in classes: which they are, and the bias that they may begin with."""

import math
from collections.abc import Iterator
from typing import Any

from torch import nn


def heads(model: nn.Module) -> Iterator[str]:
    """Yield their dotted names: what a timm model says (distilled ones have two), else the last Linear or 1x1 convolution."""
    named = {module: name for name, module in model.named_modules()}
    ask: Any = getattr(model, "get_classifier", None)  # timm's
    said = ask() if callable(ask) else None
    parts = said if isinstance(said, tuple | list) else [said]
    found = [named[module] for part in parts if isinstance(part, nn.Module) for module in part.modules() if _maps_channels(module)]
    yield from found or [name for module, name in named.items() if _maps_channels(module)][-1:]


def set_prior(model: nn.Module, *, num_classes: int) -> int:
    """Begin with -ln(num_classes) as the heads' bias, so that BCE starts from a probability of about one class in all.

    Composer's choice for BCE that is summed over classes: from zero, a thousand classes would begin with a loss of 693.

    Returns:
        how many heads have a bias.
    """
    biases = [bias for name in heads(model) if (bias := getattr(model.get_submodule(name), "bias", None)) is not None]
    for bias in biases:
        nn.init.constant_(bias, -math.log(num_classes))
    return len(biases)


def _maps_channels(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))
