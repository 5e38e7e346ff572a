"""From the optimizer's configuration to the optimizer. Fused kernels wherever torch has them."""

from typing import Any, assert_never, cast

import schedulefree
import torch
from torch import nn
from torch.optim import Optimizer

from src.config.optim import Adam, AdamW, OptimConfig, ScheduleFreeAdamW, ScheduleFreeSgd, Sgd

_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


def build_optimizer(config: OptimConfig, model: nn.Module) -> Optimizer:
    """Build the optimizer over the model's parameters, in training mode. The loop sets the rate before every step."""
    groups = parameter_groups(model, weight_decay=config.weight_decay, decay_norms_and_biases=config.decay_norms_and_biases)
    lr = config.peak_lr
    match config:
        case Sgd():
            return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, nesterov=config.nesterov, fused=True)
        case Adam():
            return torch.optim.Adam(groups, lr=lr, betas=config.betas, eps=config.eps, fused=True)
        case AdamW():
            return torch.optim.AdamW(groups, lr=lr, betas=config.betas, eps=config.eps, fused=True)
        case ScheduleFreeSgd():
            averaging: dict[str, Any] = {"r": config.r, "weight_lr_power": config.weight_lr_power}
            sf_sgd = schedulefree.SGDScheduleFree(groups, lr=lr, momentum=config.momentum, **averaging)
            sf_sgd.train()
            return cast(Optimizer, sf_sgd)
        case ScheduleFreeAdamW():
            averaging = {"r": config.r, "weight_lr_power": config.weight_lr_power}
            sf_adamw = schedulefree.AdamWScheduleFree(groups, lr=lr, betas=config.betas, eps=config.eps, **averaging)
            sf_adamw.train()
            return cast(Optimizer, sf_adamw)
        case _:
            assert_never(config)


def parameter_groups(model: nn.Module, *, weight_decay: float, decay_norms_and_biases: bool) -> list[dict[str, Any]]:
    """Split the parameters into those that decay and those that do not: weights and biases of norms, and every bias.

    By module type, not by name: `"bn" in name` misses torchvision's `downsample.1` norms.

    Returns:
        One group, or two where something decays and something does not. Each parameter once, in the model's order.
    """
    decayed: dict[nn.Parameter, None] = {}
    kept: dict[nn.Parameter, None] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in decayed or parameter in kept or not parameter.requires_grad:
                continue
            bias = name.startswith("bias") or name.endswith("bias")  # also in_proj_bias of attention, bias_ih_l0 of an LSTM
            exempt = not decay_norms_and_biases and (isinstance(module, _NORMS) or bias)
            (kept if exempt else decayed)[parameter] = None
    groups = [{"params": list(decayed), "weight_decay": weight_decay}, {"params": list(kept), "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
