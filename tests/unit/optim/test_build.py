"""Every parameter is in one group, norms and biases do not decay, and every hyperparameter arrives where it counts."""

from typing import Any

import pytest
import torch
import torchvision
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


def test_resnet50s_norms_and_biases_are_exempt_by_type() -> None:
    with torch.device("meta"):
        model = torchvision.models.resnet50()
    found = decays(model)
    assert not found["layer1.0.downsample.1.weight"], "a norm whose name does not say so"
    for name, parameter in model.named_parameters():
        assert found[name] is (parameter.ndim > 1), name
    assert sum(found.values()) == 54  # 53 convolutions and the head


def test_everything_decays_where_that_is_asked_for() -> None:
    model = SmallResNet(depth=8, width=4, num_classes=3)
    assert all(decays(model, everything=True).values())
    assert len(parameter_groups(model, weight_decay=0.1, decay_norms_and_biases=True, decay_biases=False, layer_decay=1.0)) == 1


def test_attention_and_layer_norms() -> None:
    with torch.device("meta"):
        found = decays(torchvision.models.vit_b_16())
    block = "encoder.layers.encoder_layer_0."
    exempt = ("ln_1.weight", "ln_1.bias", "self_attention.in_proj_bias", "self_attention.out_proj.bias", "mlp.0.bias")
    assert not any(found[block + name] for name in exempt)
    assert all(found[block + name] for name in ("self_attention.in_proj_weight", "self_attention.out_proj.weight", "mlp.0.weight"))


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


def configured(name: str, *more: str) -> Config:
    return load(["data=synthetic", f"optim={name}", "optim.peak_lr=0.125", "optim.weight_decay=0.01", *more])


@pytest.mark.parametrize(("name", "overrides", "kind", "expected"), HYPERPARAMETERS, ids=[row[0] for row in HYPERPARAMETERS])
def test_every_hyperparameter_reaches_every_group(name: str, overrides: list[str], kind: str, expected: dict[str, Any]) -> None:
    optimizer = build_optimizer(configured(name, *overrides).optim, SmallResNet(depth=8, width=4, num_classes=3))
    assert type(optimizer).__name__ == kind
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    for group in optimizer.param_groups:
        assert group["lr"] == 0.125
        assert {key: tuple(group[key]) if key == "betas" else group[key] for key in expected} == expected


@pytest.mark.parametrize("name", [row[0] for row in HYPERPARAMETERS])
def test_decaying_norms_reaches_the_optimizer(name: str) -> None:
    config = configured(name, "optim.decay_norms_and_biases=true")
    optimizer: Optimizer = build_optimizer(config.optim, SmallResNet(depth=8, width=4, num_classes=3))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01]


@pytest.mark.parametrize("name", [row[0] for row in HYPERPARAMETERS])
def test_each_optimizer_lowers_a_loss(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    inputs, targets = torch.randn(32, 4), torch.randn(32, 1)
    optimizer = build_optimizer(configured(name).optim, model)
    losses = []
    for _ in range(20):
        loss = (model(inputs) - targets).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
