"""Every optimizer once more, from its paper, one tensor at a time, with no regard for speed. Plain arithmetic on tensors.

A rule changes one weight: rule(w, g, state, lr=..., decay=..., step=..., **hyperparameters) returns the new one, step from 1.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Any]
Betas = tuple[float, float]
Rule = Callable[..., Tensor]


def sgd(w: Tensor, g: Tensor, state: State, *, lr: float, decay: float, step: int, momentum: float, nesterov: bool) -> Tensor:
    """Heavy ball (Sutskever et al. 2013) as torch has it: the rate stands outside the momentum."""
    g = g + decay * w
    state["v"] = momentum * state["v"] + g if step > 1 else g
    return w - lr * (g + momentum * state["v"] if nesterov else state["v"])


def decoupled_sgdw(
    w: Tensor, g: Tensor, state: State, *, lr: float, decay: float, step: int, momentum: float, nesterov: bool, initial_lr: float
) -> Tensor:
    """Composer's DecoupledSGDW, after Loshchilov and Hutter 2019, arXiv:1711.05101: w shrinks by lr / initial_lr of the decay."""
    state["v"] = momentum * state["v"] + g if step > 1 else g
    update = g + momentum * state["v"] if nesterov else state["v"]
    return w * (1 - lr / initial_lr * decay) - lr * update


def adam(
    w: Tensor,
    g: Tensor,
    state: State,
    *,
    lr: float,
    decay: float,
    step: int,
    betas: Betas,
    eps: float,
    decoupled: bool,
) -> Tensor:
    """Kingma and Ba 2015, arXiv:1412.6980, algorithm 1; decoupled: arXiv:1711.05101, algorithm 2."""
    if decoupled:
        w = w - lr * decay * w
    else:
        g = g + decay * w
    return w - lr * moments(g, state, step=step, betas=betas, eps=eps)


def moments(g: Tensor, state: State, *, step: int, betas: Betas, eps: float) -> Tensor:
    """Adam's direction: the mean of gradients over the root of the mean of their squares, both corrected for their start at 0."""
    zeros = torch.zeros_like(g)
    state["m"] = betas[0] * state.get("m", zeros) + (1 - betas[0]) * g
    state["v"] = betas[1] * state.get("v", zeros) + (1 - betas[1]) * g * g
    return (state["m"] / (1 - betas[0] ** step)) / ((state["v"] / (1 - betas[1] ** step)).sqrt() + eps)


def rmsprop(
    w: Tensor,
    g: Tensor,
    state: State,
    *,
    lr: float,
    decay: float,
    step: int,
    alpha: float,
    eps: float,
    momentum: float,
    centered: bool,
) -> Tensor:
    """Tieleman and Hinton 2012, lecture 6.5; centered: Graves 2013, arXiv:1308.0850, equations 38-41, eps outside the root."""
    zeros = torch.zeros_like(w)
    g = g + decay * w
    state["n"] = alpha * state.get("n", zeros) + (1 - alpha) * g * g
    state["mean"] = alpha * state.get("mean", zeros) + (1 - alpha) * g
    variance = state["n"] - state["mean"] ** 2 if centered else state["n"]
    state["b"] = momentum * state.get("b", zeros) + g / (variance.sqrt() + eps)
    return w - lr * state["b"]


def lars(
    w: Tensor,
    g: Tensor,
    state: State,
    *,
    lr: float,
    decay: float,
    step: int,
    momentum: float,
    nesterov: bool,
    trust_coefficient: float,
    eps: float,
) -> Tensor:
    """You et al. 2017, arXiv:1708.03888, equation 6 and algorithm 1, with the rate outside the momentum as in every SGD here.

    What does not decay keeps the plain rate.
    """
    if decay:
        local_rate = trust_coefficient * length(w) / (length(g) + decay * length(w) + eps)
        g = local_rate * (g + decay * w)
    state["v"] = momentum * state["v"] + g if step > 1 else g
    return w - lr * (g + momentum * state["v"] if nesterov else state["v"])


def lamb(w: Tensor, g: Tensor, state: State, *, lr: float, decay: float, step: int, betas: Betas, eps: float) -> Tensor:
    """You et al. 2020, arXiv:1904.00962, algorithm 2 with phi(z) = z. What does not decay keeps the plain rate."""
    update = moments(g, state, step=step, betas=betas, eps=eps) + decay * w
    return w - lr * (length(w) / length(update) if decay else 1.0) * update


def sf_sgd(
    w: Tensor, g: Tensor, state: State, *, lr: float, decay: float, step: int, momentum: float, r: float, weight_lr_power: float
) -> Tensor:
    """Defazio et al. 2024, arXiv:2405.15682, equations 3-5 and section 4.1: w is y, at which gradients are taken."""
    return schedule_free(w, g + decay * w, state, lr=lr, step=step, beta=momentum, r=r, weight_lr_power=weight_lr_power)


def sf_adamw(
    w: Tensor,
    g: Tensor,
    state: State,
    *,
    lr: float,
    decay: float,
    step: int,
    betas: Betas,
    eps: float,
    r: float,
    weight_lr_power: float,
) -> Tensor:
    """The same, algorithm 1, with the bias correction under the root as its authors' package has it."""
    state["v"] = betas[1] * state.get("v", torch.zeros_like(w)) + (1 - betas[1]) * g * g
    g = g / ((state["v"] / (1 - betas[1] ** step)).sqrt() + eps) + decay * w
    return schedule_free(w, g, state, lr=lr, step=step, beta=betas[0], r=r, weight_lr_power=weight_lr_power)


def schedule_free(
    y: Tensor, g: Tensor, state: State, *, lr: float, step: int, beta: float, r: float, weight_lr_power: float
) -> Tensor:
    """z makes the plain steps, x is their weighted mean, y lies between them."""
    weight = step**r * lr**weight_lr_power
    state["sum"] = state.get("sum", 0.0) + weight
    share = weight / state["sum"]
    state["z"] = state.get("z", y) - lr * g
    state["x"] = (1 - share) * state.get("x", y) + share * state["z"]
    return (1 - beta) * state["z"] + beta * state["x"]


def length(tensor: Tensor) -> Tensor:
    return (tensor * tensor).sum().sqrt()


class Twin:
    """Steps a model by a rule.

    Args:
        decays: each parameter's name and its weight decay.
        scales: each parameter's name and its share of the rate.
        max_grad_norm: LAMB's own clipping of all gradients together.
    """

    def __init__(
        self, rule: Rule, decays: dict[str, float], scales: dict[str, float], *, max_grad_norm: float | None = None, **hyper: Any
    ) -> None:
        self.rule, self.decays, self.scales, self.max_grad_norm, self.hyper = rule, decays, scales, max_grad_norm, hyper
        self.states: dict[str, State] = {name: {} for name in decays}
        self.steps = 0

    @torch.no_grad()
    def step(self, model: nn.Module, gradients: dict[str, Tensor], lr: float) -> None:
        self.steps += 1
        clip = 1.0
        if self.max_grad_norm is not None:
            total = sum(float((gradient.double() ** 2).sum()) for gradient in gradients.values()) ** 0.5
            clip = max(1.0, total / self.max_grad_norm)
        for name, weight in model.named_parameters():
            new = self.rule(
                weight.clone(),
                gradients[name] / clip,
                self.states[name],
                lr=lr * self.scales[name],
                decay=self.decays[name],
                step=self.steps,
                **self.hyper,
            )
            weight.copy_(new)
