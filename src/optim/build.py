"""From the optimizer's configuration to the optimizer. Fused kernels wherever torch has them."""

from typing import Any, assert_never, cast

import schedulefree
import torch
from torch import nn
from torch.optim import Optimizer

from src.config.optim import Adam, AdamW, Lamb, Lars, OptimConfig, RmsProp, ScheduleFreeAdamW, ScheduleFreeSgd, Sgd, SgdW
from src.optim.groups import parameter_groups


def build_optimizer(config: OptimConfig, model: nn.Module) -> Optimizer:
    """Build the optimizer over the model's parameters, in training mode.

    The loop sets the rate before every step: the schedule's times the group's `lr_scale`, which every group has.

    Raises:
        ConfigError: if layer-wise decay is asked for and the model has only one layer.
    """
    groups = parameter_groups(
        model,
        weight_decay=config.weight_decay,
        decay_norms_and_biases=config.decay_norms_and_biases,
        decay_biases=config.decay_biases,
        layer_decay=config.layer_decay,
    )
    lr = config.peak_lr
    match config:
        case Sgd():
            return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, nesterov=config.nesterov, fused=True)
        case Adam():
            return torch.optim.Adam(groups, lr=lr, betas=config.betas, eps=config.eps, fused=True)
        case AdamW():
            return torch.optim.AdamW(groups, lr=lr, betas=config.betas, eps=config.eps, fused=True)
        case RmsProp():
            momentum, centered = config.momentum, config.centered
            return torch.optim.RMSprop(groups, lr=lr, alpha=config.alpha, momentum=momentum, eps=config.eps, centered=centered)
        case SgdW() | Lars() | Lamb():
            return _build_timms(config, groups)
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


def _build_timms(config: SgdW | Lars | Lamb, groups: list[dict[str, Any]]) -> Optimizer:
    import timm.optim  # a second and a half, with all of timm's models: only who needs it waits

    lr = config.peak_lr
    match config:
        case SgdW():
            return cast(Optimizer, timm.optim.SGDW(groups, lr=lr, momentum=config.momentum, nesterov=config.nesterov))
        case Lars():
            more: dict[str, Any] = {"momentum": config.momentum, "nesterov": config.nesterov}
            return cast(Optimizer, timm.optim.Lars(groups, lr=lr, trust_coeff=config.trust_coefficient, eps=config.eps, **more))
        case Lamb():
            more = {"betas": config.betas, "eps": config.eps, "max_grad_norm": config.max_grad_norm}
            return cast(Optimizer, timm.optim.Lamb(groups, lr=lr, **more))
        case _:
            assert_never(config)
