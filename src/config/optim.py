"""Schema of the optim group: the optimizer, its rate for the whole batch, and sharpness-aware steps over any of them."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from src.config.fields import BelowOne, Count, Flag, InsideUnit, NonNegative, Positive, PositiveFraction, Strict

Betas = tuple[BelowOne, BelowOne]


class OptimCommon(Strict):
    """What every optimizer has. peak_lr is for the batch that is trained on, unless lr_scaling says that it is for another."""

    peak_lr: Positive
    lr_scaling: Literal["none", "linear", "sqrt"]
    reference_batch_size: Count
    weight_decay: NonNegative
    decay_norms_and_biases: Flag
    decay_biases: Flag
    layer_decay: PositiveFraction
    sam_rho: Positive | None
    sam_every_steps: Count

    def lr_for(self, batch_size: int) -> float:
        """Return the peak rate for a batch over all ranks: by the linear rule (Goyal et al. 2017, arXiv:1706.02677) or the root."""
        ratio = batch_size / self.reference_batch_size
        return self.peak_lr * {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[self.lr_scaling]


class WithMomentum(OptimCommon):
    """Heavy-ball momentum, or Nesterov's."""

    momentum: BelowOne
    nesterov: Flag

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "WithMomentum":
        if self.nesterov and self.momentum == 0:
            raise ValueError("optim.nesterov=true needs optim.momentum > 0. Set optim.momentum=0.9 or optim.nesterov=false.")
        return self


class Sgd(WithMomentum):
    """torch.optim.SGD, coupled weight decay."""

    name: Literal["sgd"]


class SgdW(WithMomentum):
    """timm.optim.SGDW: SGD with decoupled weight decay, lr x weight_decay a step."""

    name: Literal["sgdw"]


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


class RmsProp(OptimCommon):
    """torch.optim.RMSprop, coupled weight decay."""

    name: Literal["rmsprop"]
    alpha: BelowOne
    momentum: BelowOne
    eps: Positive
    centered: Flag


class Lars(WithMomentum):
    """timm.optim.Lars."""

    name: Literal["lars"]
    trust_coefficient: Positive
    eps: Positive


class Lamb(OptimCommon):
    """timm.optim.Lamb."""

    name: Literal["lamb"]
    betas: Betas
    eps: Positive
    max_grad_norm: Positive | None


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


OptimConfig = Annotated[
    Sgd | SgdW | Adam | AdamW | RmsProp | Lars | Lamb | ScheduleFreeSgd | ScheduleFreeAdamW, Field(discriminator="name")
]
