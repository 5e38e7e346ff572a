"""Parameter groups: what decays, and at which share of the rate each layer learns."""

import inspect
import sys
from typing import Any

from torch import nn

from src.config import ConfigError, Problem
from src.optim.layers import layer_of_parameters

_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)
_TIMMS_NORM_FILES = ("norm", "norm_act", "evo_norm", "filter_response_norm", "grn")  # of timm.layers


def parameter_groups(
    model: nn.Module, *, weight_decay: float, decay_norms_and_biases: bool, decay_biases: bool, layer_decay: float
) -> list[dict[str, Any]]:
    """Split the parameters by whether they decay and, with layer-wise decay, by layer.

    Weights and biases of norms, and every bias, do not decay. By module type, not by name: `"bn" in name` misses torchvision's
    `downsample.1` norms. timm goes by dimension instead (at most one: no decay) and so exempts scales such as LayerScale's too, and
    leaves out what a model's no_weight_decay() names, such as position embeddings; here these decay.

    With layer_decay < 1 a layer learns at lr x layer_decay^(its distance from the head), the head at lr (BEiT, Bao et al. 2022,
    arXiv:2106.08254, appendix).

    Args:
        model: its frozen parameters are left out.
        weight_decay: of the parameters that decay.
        decay_norms_and_biases: let everything decay.
        decay_biases: let biases decay, but not those of norms.
        layer_decay: in (0, 1]; 1 for one rate everywhere.

    Returns:
        Groups of params, weight_decay and lr_scale, from the first layer to the head, what decays before what does not. No group is
        empty, and each parameter is listed once, in the model's order.

    Raises:
        ConfigError: if layer_decay < 1 and the model has only one layer.
    """
    layers = dict.fromkeys(model.parameters(), 0) if layer_decay == 1 else layer_of_parameters(model)
    head = max(layers.values(), default=0)
    if layer_decay < 1 and head == 0:
        fix = (
            f"{type(model).__name__} has only one layer, so no layer is below another. Set optim.layer_decay=1.0, or build the "
            "model from several modules: a chain of blocks in a Sequential or ModuleList, and a head."
        )
        raise ConfigError("the optimizer", [Problem("optim.layer_decay", layer_decay, fix)])
    exempt = set() if decay_norms_and_biases else norms_and_biases(model, biases=not decay_biases)
    members: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            members.setdefault((layers[parameter], parameter in exempt), []).append(parameter)
    return [
        {"params": members[layer, kept], "weight_decay": 0.0 if kept else weight_decay, "lr_scale": layer_decay ** (head - layer)}
        for layer, kept in sorted(members)
    ]


def norms_and_biases(model: nn.Module, *, biases: bool) -> set[nn.Parameter]:
    """Return the parameters of every norm and, if asked for, every other bias. What modules share counts as the first one's."""
    norms = _NORMS + _norms_of_timm()
    exempt: dict[nn.Parameter, bool] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            bias = name.startswith("bias") or name.endswith("bias")  # also in_proj_bias of attention, bias_ih_l0 of an LSTM
            exempt.setdefault(parameter, isinstance(module, norms) or (biases and bias))
    return {parameter for parameter, is_exempt in exempt.items() if is_exempt}


def _norms_of_timm() -> tuple[type[nn.Module], ...]:
    """Return timm's norms that do not derive from torch's. A model can hold one only where timm is imported already."""
    files = [sys.modules.get(f"timm.layers.{name}") for name in _TIMMS_NORM_FILES]
    return tuple(
        member
        for file in files
        if file is not None
        for member in vars(file).values()
        if inspect.isclass(member) and issubclass(member, nn.Module) and member.__module__ == file.__name__
    )
