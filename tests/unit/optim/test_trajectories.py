"""Fifty steps of every optimizer: bit for bit the reference package's, and to rounding the paper's, tensor by tensor."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import schedulefree
import timm.optim
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from src.config import load
from src.optim.build import build_optimizer
from tests.unit.optim import twins
from tests.unit.optim.twins import Rule, Twin

STEPS, WARMUP = 50, 10
DECAYING = ("0.weight", "3.weight", "8.weight")
LAYERS = ({"0.weight", "1.weight", "1.bias"}, {"3.weight", "4.weight", "4.bias"}, {"8.weight", "8.bias"})


class Case(NamedTuple):
    """One optimizer as configured, as its package builds it, and as the twin's rule."""

    overrides: list[str]
    reference: Callable[[list[dict[str, Any]]], Optimizer]
    rule: Rule
    hyper: dict[str, Any]
    peak_lr: float
    weight_decay: float


ADAM: dict[str, Any] = {"betas": (0.9, 0.99), "eps": 1e-8}
RMS: dict[str, Any] = {"alpha": 0.9, "eps": 1e-3}
LARS: dict[str, Any] = {"momentum": 0.9, "eps": 1e-8}
FREE: dict[str, Any] = {"r": 0.5, "weight_lr_power": 2.0}
CASES = {
    "sgd": Case(
        ["optim=sgd"],
        lambda groups: torch.optim.SGD(groups, lr=9, momentum=0.9, fused=True),
        twins.sgd,
        {"momentum": 0.9, "nesterov": False},
        0.1,
        0.01,
    ),
    "sgd nesterov": Case(
        ["optim=sgd", "optim.nesterov=true", "optim.momentum=0.875"],
        lambda groups: torch.optim.SGD(groups, lr=9, momentum=0.875, nesterov=True, fused=True),
        twins.sgd,
        {"momentum": 0.875, "nesterov": True},
        0.1,
        0.01,
    ),
    "sgdw": Case(
        ["optim=sgdw"],
        lambda groups: timm.optim.SGDW(groups, lr=9, momentum=0.9),
        twins.decoupled_sgdw,
        {"momentum": 0.9, "nesterov": False, "initial_lr": 1.0},
        0.1,
        0.1,
    ),
    "sgdw nesterov": Case(
        ["optim=sgdw", "optim.nesterov=true"],
        lambda groups: timm.optim.SGDW(groups, lr=9, momentum=0.9, nesterov=True),
        twins.decoupled_sgdw,
        {"momentum": 0.9, "nesterov": True, "initial_lr": 1.0},
        0.1,
        0.1,
    ),
    "adam": Case(
        ["optim=adam", "optim.betas=[0.9,0.99]"],
        lambda groups: torch.optim.Adam(groups, lr=9, **ADAM, fused=True),
        twins.adam,
        {**ADAM, "decoupled": False},
        0.003,
        0.01,
    ),
    "adamw": Case(
        ["optim=adamw", "optim.betas=[0.9,0.99]"],
        lambda groups: torch.optim.AdamW(groups, lr=9, **ADAM, fused=True),
        twins.adam,
        {**ADAM, "decoupled": True},
        0.003,
        0.5,
    ),
    "rmsprop": Case(
        ["optim=rmsprop"],
        lambda groups: torch.optim.RMSprop(groups, lr=9, **RMS, momentum=0.9),
        twins.rmsprop,
        {**RMS, "momentum": 0.9, "centered": False},
        0.001,
        0.01,
    ),
    "rmsprop centered": Case(
        ["optim=rmsprop", "optim.centered=true", "optim.momentum=0.0"],
        lambda groups: torch.optim.RMSprop(groups, lr=9, **RMS, centered=True),
        twins.rmsprop,
        {**RMS, "momentum": 0.0, "centered": True},
        0.001,
        0.01,
    ),
    "lars": Case(
        ["optim=lars", "optim.trust_coefficient=0.01"],
        lambda groups: timm.optim.Lars(groups, lr=9, **LARS, trust_coeff=0.01),
        twins.lars,
        {**LARS, "nesterov": False, "trust_coefficient": 0.01},
        0.5,
        0.01,
    ),
    "lars nesterov": Case(
        ["optim=lars", "optim.trust_coefficient=0.01", "optim.nesterov=true"],
        lambda groups: timm.optim.Lars(groups, lr=9, **LARS, trust_coeff=0.01, nesterov=True),
        twins.lars,
        {**LARS, "nesterov": True, "trust_coefficient": 0.01},
        0.5,
        0.01,
    ),
    "lamb": Case(
        ["optim=lamb", "optim.betas=[0.9,0.99]", "optim.eps=1e-8", "optim.max_grad_norm=0.5"],
        lambda groups: timm.optim.Lamb(groups, lr=9, **ADAM, max_grad_norm=0.5),
        twins.lamb,
        {**ADAM, "max_grad_norm": 0.5},
        0.01,
        0.1,
    ),
    "lamb unclipped": Case(
        ["optim=lamb", "optim.betas=[0.9,0.99]", "optim.eps=1e-8", "optim.max_grad_norm=null"],
        lambda groups: timm.optim.Lamb(groups, lr=9, **ADAM, max_grad_norm=None),
        twins.lamb,
        ADAM,
        0.01,
        0.1,
    ),
    "sf_sgd": Case(
        ["optim=sf_sgd", "optim.r=0.5"],
        lambda groups: schedulefree.SGDScheduleFree(groups, lr=9, momentum=0.9, **FREE),
        twins.sf_sgd,
        {"momentum": 0.9, **FREE},
        0.5,
        0.01,
    ),
    "sf_adamw": Case(
        ["optim=sf_adamw", "optim.betas=[0.9,0.99]", "optim.r=0.5"],
        lambda groups: schedulefree.AdamWScheduleFree(groups, lr=9, **ADAM, **FREE),
        twins.sf_adamw,
        {**ADAM, **FREE},
        0.003,
        0.1,
    ),
}
each_case = pytest.mark.parametrize("name", CASES)


def small_model(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).to(dtype)


def lr_at(case: Case, step: int) -> float:
    """A linear warm-up, then half a cosine; schedule-free stays at the peak."""
    if step < WARMUP:
        return case.peak_lr * (step + 1) / WARMUP
    flat = case.overrides[0].startswith("optim=sf_")
    return case.peak_lr * (1.0 if flat else 0.5 + 0.5 * math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def batches(dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    for _ in range(STEPS):
        labels = torch.randint(0, 5, (16,), generator=generator)
        images = torch.randn(16, 3, 8, 8, generator=generator) + 0.3 * labels.view(-1, 1, 1, 1)
        yield images.to(dtype), labels


def gradients_at(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    functional.cross_entropy(model(images), labels).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def ours(case: Case, model: nn.Module, *more: str) -> Optimizer:
    settings = [f"optim.peak_lr={case.peak_lr}", f"optim.weight_decay={case.weight_decay}", *more]
    return build_optimizer(load(["data=synthetic", *case.overrides, *settings]).optim, model)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """What the loop does before every step."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


@each_case
def test_bit_for_bit_the_reference_package(name: str) -> None:
    case = CASES[name]
    model, plain = small_model(torch.float32), small_model(torch.float32)
    optimizer = ours(case, model)
    weights = dict(plain.named_parameters())
    reference = case.reference(
        [
            {"params": [weights[key] for key in weights if key in DECAYING], "weight_decay": case.weight_decay},
            {"params": [weights[key] for key in weights if key not in DECAYING], "weight_decay": 0.0},
        ]
    )
    if hasattr(reference, "train"):
        reference.train()
    for step, (images, labels) in enumerate(batches(torch.float32)):
        for run, stepped in ((model, optimizer), (plain, reference)):
            functional.cross_entropy(run(images), labels).backward()
            for group in stepped.param_groups:
                group["lr"] = lr_at(case, step)
            stepped.step()
            stepped.zero_grad()
        for key, weight in model.state_dict().items():
            assert torch.equal(weight, plain.state_dict()[key]), (step, key)


def relative_distance(weight: Tensor, reference: Tensor) -> float:
    """Return the largest difference as a share of the reference's largest element (at least 1e-3: norms' biases start at 0)."""
    return float(((weight - reference).abs().max() / reference.abs().max().clamp(min=1e-3)).detach())


def twin_of(case: Case, layer_decay: float) -> Twin:
    names = [name for name, _ in small_model(torch.float32).named_parameters()]
    decays = {name: case.weight_decay if name in DECAYING else 0.0 for name in names}
    scales = {name: layer_decay ** (2 - depth) for depth, layer in enumerate(LAYERS) for name in layer}
    return Twin(case.rule, decays, scales, **case.hyper)


@each_case
def test_the_papers_rule_in_float64_with_rates_that_differ_by_layer(name: str) -> None:
    """Each follows its own gradients, so an error would grow: within 1e-10 after 50 steps."""
    case = CASES[name]
    model, other = small_model(torch.float64), small_model(torch.float64)
    start = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    optimizer, twin = ours(case, model, "optim.layer_decay=0.7"), twin_of(case, layer_decay=0.7)
    for step, (images, labels) in enumerate(batches(torch.float64)):
        gradients_at(model, images, labels)
        set_lr(optimizer, lr_at(case, step))
        optimizer.step()
        twin.step(other, gradients_at(other, images, labels), lr_at(case, step))
        theirs = dict(other.named_parameters())
        for key, weight in model.named_parameters():
            assert relative_distance(weight, theirs[key]) <= 1e-10, (step, key)
        assert step < STEPS - 1 or all(relative_distance(weight, start[key]) > 1e-3 for key, weight in theirs.items()), "moved"


@each_case
def test_the_papers_rule_on_the_same_gradients_in_float32(name: str) -> None:
    """The float32 kernels against the rule in float64, both fed the gradients of the former: within 1e-6 over 50 steps."""
    case = CASES[name]
    model, other = small_model(torch.float32), small_model(torch.float64)
    optimizer, twin = ours(case, model), twin_of(case, layer_decay=1.0)
    for step, (images, labels) in enumerate(batches(torch.float32)):
        gradients = {key: gradient.double() for key, gradient in gradients_at(model, images, labels).items()}
        set_lr(optimizer, lr_at(case, step))
        optimizer.step()
        twin.step(other, gradients, lr_at(case, step))
        theirs = dict(other.named_parameters())
        for key, weight in model.named_parameters():
            assert relative_distance(weight, theirs[key]) <= 1e-6, (step, key)


def test_composers_decay_is_timms_times_the_initial_rate() -> None:
    """Composer shrinks by lr / initial_lr x decay a step, timm by lr x decay: 5e-4 at 2.048 there is 5e-4 / 2.048 here."""
    case = CASES["sgdw"]._replace(peak_lr=2.048, weight_decay=5e-4 / 2.048)
    model, other = small_model(torch.float64), small_model(torch.float64)
    optimizer = ours(case, model, "optim.decay_norms_and_biases=true", "optim.momentum=0.875")
    names = [key for key, _ in other.named_parameters()]
    composer = {"momentum": 0.875, "nesterov": False, "initial_lr": 2.048}
    twin = Twin(twins.decoupled_sgdw, dict.fromkeys(names, 5e-4), dict.fromkeys(names, 1.0), **composer)
    for step, (images, labels) in enumerate(batches(torch.float64)):
        gradients = gradients_at(model, images, labels)
        set_lr(optimizer, lr_at(case, step))
        optimizer.step()
        twin.step(other, gradients, lr_at(case, step))
    theirs = dict(other.named_parameters())
    for key, weight in model.named_parameters():
        assert torch.allclose(weight, theirs[key], rtol=1e-12, atol=1e-12), key


def test_larss_momentum_is_the_papers_while_the_rate_stands_still() -> None:
    """The paper takes the rate into the momentum, timm (as torch's SGD) leaves it outside: the same at a constant rate only."""
    case = CASES["lars"]
    for constant in (True, False):
        model = small_model(torch.float64)
        weights = {key: weight.detach().clone() for key, weight in model.named_parameters()}
        speeds = {key: torch.zeros_like(weight) for key, weight in weights.items()}
        optimizer = ours(case, model)
        for step, (images, labels) in enumerate(batches(torch.float64)):
            gradients = gradients_at(model, images, labels)
            lr = 0.3 if constant else lr_at(case, step)
            set_lr(optimizer, lr)
            optimizer.step()
            for key, weight in weights.items():
                g, rate = gradients[key], lr
                if key in DECAYING:
                    rate *= float(0.01 * weight.norm() / (g.norm() + 0.01 * weight.norm()))
                    g = g + 0.01 * weight
                speeds[key] = 0.9 * speeds[key] + rate * g
                weights[key] = weight - speeds[key]
        far = max(relative_distance(weight, weights[key]) for key, weight in model.named_parameters())
        assert far < 1e-6 if constant else far > 1e-3
