"""Every parameter is in one group, norms and biases do not decay, and every hyperparameter arrives where it counts."""

import subprocess
import sys
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from src.config import Config, load
from src.models.small_resnet import SmallResNet
from src.optim.build import build_optimizer
from src.optim.groups import parameter_groups


def decays(model: nn.Module, *, everything: bool = False) -> dict[str, bool]:
    """Return for each parameter whether it decays. Each must be in exactly one group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, weight_decay=0.1, decay_norms_and_biases=everything, decay_biases=False, layer_decay=1.0)
    found = [(names[id(parameter)], group["weight_decay"]) for group in groups for parameter in group["params"]]
    assert sorted(name for name, _ in found) == sorted(names.values())
    assert {decay for _, decay in found} <= {0.0, 0.1}
    return {name: decay > 0 for name, decay in found}


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(2),
        nn.BatchNorm3d(2),
        nn.SyncBatchNorm(2),
        nn.GroupNorm(1, 2),
        nn.LayerNorm(2),
        nn.RMSNorm(2),
        nn.InstanceNorm2d(2, affine=True),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_every_kind_of_norm(norm: nn.Module) -> None:
    found = decays(nn.Sequential(nn.Linear(2, 2), norm))
    assert found.pop("0.weight")
    assert found
    assert not any(found.values())


def test_a_shared_parameter_is_listed_once_and_a_frozen_one_not_at_all() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert decays(model) == {"0.weight": True, "0.bias": False, "1.bias": False}
    model[1].bias.requires_grad = False
    groups = parameter_groups(model, weight_decay=0.1, decay_norms_and_biases=False, decay_biases=False, layer_decay=1.0)
    assert [len(group["params"]) for group in groups] == [1, 1]


def test_an_empty_group_is_left_out() -> None:
    assert (
        len(
            parameter_groups(
                nn.Linear(2, 2, bias=False), weight_decay=0.1, decay_norms_and_biases=False, decay_biases=False, layer_decay=1.0
            )
        )
        == 1
    )


HYPERPARAMETERS: list[tuple[str, list[str], str, dict[str, Any]]] = [
    ("sgd", ["optim.momentum=0.8", "optim.nesterov=true"], "SGD", {"momentum": 0.8, "nesterov": True, "fused": True}),
    ("adam", ["optim.betas=[0.8,0.95]", "optim.eps=1e-5"], "Adam", {"betas": (0.8, 0.95), "eps": 1e-5, "fused": True}),
    ("adamw", ["optim.betas=[0.8,0.95]", "optim.eps=1e-5"], "AdamW", {"betas": (0.8, 0.95), "eps": 1e-5, "fused": True}),
    (
        "sgdw",
        ["optim.momentum=0.8", "optim.nesterov=true"],
        "SGDW",
        {"momentum": 0.8, "nesterov": True, "dampening": 0.0, "caution": False, "corrected_weight_decay": False},
    ),
    (
        "rmsprop",
        ["optim.alpha=0.8", "optim.momentum=0.7", "optim.eps=1e-5", "optim.centered=true"],
        "RMSprop",
        {"alpha": 0.8, "momentum": 0.7, "eps": 1e-5, "centered": True},
    ),
    (
        "lars",
        ["optim.momentum=0.8", "optim.nesterov=true", "optim.trust_coefficient=0.02", "optim.eps=1e-5"],
        "Lars",
        {"momentum": 0.8, "nesterov": True, "trust_coeff": 0.02, "eps": 1e-5, "trust_clip": False, "always_adapt": False},
    ),
    (
        "lamb",
        ["optim.betas=[0.8,0.95]", "optim.eps=1e-5", "optim.max_grad_norm=3.0"],
        "Lamb",
        {"betas": (0.8, 0.95), "eps": 1e-5, "max_grad_norm": 3.0, "bias_correction": True, "decoupled_decay": False},
    ),
    (
        "sf_sgd",
        ["optim.momentum=0.8", "optim.r=0.5", "optim.weight_lr_power=1.0"],
        "SGDScheduleFree",
        {"momentum": 0.8, "r": 0.5, "weight_lr_power": 1.0, "train_mode": True, "warmup_steps": 0},
    ),
    (
        "sf_adamw",
        ["optim.betas=[0.8,0.95]", "optim.eps=1e-5", "optim.r=0.5", "optim.weight_lr_power=1.0"],
        "AdamWScheduleFree",
        {"betas": (0.8, 0.95), "eps": 1e-5, "r": 0.5, "weight_lr_power": 1.0, "train_mode": True, "warmup_steps": 0},
    ),
]


@cache
def configured(name: str, *more: str) -> Config:
    return load(["data=synthetic", f"optim={name}", "optim.peak_lr=0.125", "optim.weight_decay=0.01", *more])


@pytest.mark.parametrize(("name", "overrides", "kind", "expected"), HYPERPARAMETERS, ids=[row[0] for row in HYPERPARAMETERS])
def test_every_hyperparameter_reaches_every_group(name: str, overrides: list[str], kind: str, expected: dict[str, Any]) -> None:
    optimizer = build_optimizer(configured(name, *overrides).optim, SmallResNet(depth=8, width=4, num_classes=3))
    assert type(optimizer).__name__ == kind
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    for group in optimizer.param_groups:
        assert group["lr"] == 0.125
        assert group["lr_scale"] == 1.0
        assert {key: tuple(group[key]) if key == "betas" else group[key] for key in expected} == expected


@pytest.mark.parametrize("name", [row[0] for row in HYPERPARAMETERS])
def test_decaying_norms_reaches_the_optimizer(name: str) -> None:
    config = configured(name, "optim.decay_norms_and_biases=true")
    optimizer: Optimizer = build_optimizer(config.optim, SmallResNet(depth=8, width=4, num_classes=3))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01]


@pytest.mark.parametrize("name", [row[0] for row in HYPERPARAMETERS])
def test_decaying_biases_reaches_the_optimizer(name: str) -> None:
    model = SmallResNet(depth=8, width=4, num_classes=3)
    decayed = build_optimizer(configured(name, "optim.decay_biases=true").optim, model).param_groups[0]["params"]
    assert any(parameter is model.fc.bias for parameter in decayed)
    assert not any(parameter is model.stem[1].bias for parameter in decayed)


@pytest.mark.parametrize("name", [row[0] for row in HYPERPARAMETERS])
def test_layer_decay_reaches_the_optimizer(name: str) -> None:
    optimizer = build_optimizer(configured(name, "optim.layer_decay=0.5").optim, SmallResNet(depth=8, width=4, num_classes=3))
    assert [group["lr_scale"] for group in optimizer.param_groups] == [0.5**below for below in (4, 3, 2, 1, 0) for _ in range(2)]


def test_lambs_own_clipping_can_be_switched_off() -> None:
    optimizer = build_optimizer(configured("lamb", "optim.max_grad_norm=null").optim, SmallResNet(depth=8, width=4, num_classes=3))
    assert optimizer.defaults["max_grad_norm"] is None


def test_timm_is_imported_only_by_who_needs_it() -> None:
    code = (
        "import sys; from torch import nn; from src.config import load; from src.optim.build import build_optimizer; "
        "model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)); "
        "build_optimizer(load(['data=synthetic', 'optim=rmsprop', 'optim.layer_decay=0.5']).optim, model); "
        "print('timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


@pytest.mark.parametrize("name", [row[0] for row in HYPERPARAMETERS])
def test_each_optimizer_lowers_a_loss(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    inputs, targets = torch.randn(32, 4), torch.randn(32, 1)
    more = ["optim.trust_coefficient=0.1"] if name == "lars" else []
    optimizer = build_optimizer(configured(name, *more).optim, model)
    losses = []
    for _ in range(20):
        loss = (model(inputs) - targets).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
