"""What an optimizer keeps: all of it is in its state dict, so that a resumed run goes on bit for bit."""

import io
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim import Optimizer

from src.config import load
from src.config.optim import OptimConfig
from src.memory import optimizer_tensors
from src.models.small_resnet import SmallResNet
from src.optim.build import build_optimizer
from src.training.resume import host_copy

OPTIMIZERS = {
    "sgd": ["optim=sgd"],
    "sgdw": ["optim=sgdw"],
    "sgdw without momentum": ["optim=sgdw", "optim.momentum=0.0"],
    "adam": ["optim=adam"],
    "adamw": ["optim=adamw"],
    "rmsprop": ["optim=rmsprop"],
    "rmsprop centered": ["optim=rmsprop", "optim.centered=true"],
    "rmsprop alone": ["optim=rmsprop", "optim.momentum=0.0"],
    "lars": ["optim=lars"],
    "lars without momentum": ["optim=lars", "optim.momentum=0.0"],
    "lamb": ["optim=lamb"],
    "sf_sgd": ["optim=sf_sgd"],
    "sf_adamw": ["optim=sf_adamw"],
}
each_optimizer = pytest.mark.parametrize("overrides", OPTIMIZERS.values(), ids=OPTIMIZERS)


@cache
def configured(*overrides: str) -> OptimConfig:
    return load(["data=synthetic", *overrides, "optim.layer_decay=0.7"]).optim


def fresh(overrides: list[str], seed: int) -> tuple[nn.Module, Optimizer]:
    torch.manual_seed(seed)
    model = SmallResNet(depth=8, width=4, num_classes=3).to(memory_format=torch.channels_last)
    return model, build_optimizer(configured(*overrides), model)


def train(model: nn.Module, optimizer: Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (step + 1) * group["lr_scale"]
        functional.cross_entropy(model(torch.randn(8, 3, 8, 8, generator=generator)), torch.arange(8) % 3).backward()
        optimizer.step()
        optimizer.zero_grad()


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """As a checkpoint goes: tensors and plain containers only."""
    file = io.BytesIO()
    torch.save(host_copy(state), file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@each_optimizer
def test_a_resumed_run_equals_the_whole_one(overrides: list[str]) -> None:
    stop = 3
    model, optimizer = fresh(overrides, seed=0)
    train(model, optimizer, 0, stop)
    weights, state = through_a_file(model.state_dict()), through_a_file(optimizer.state_dict())
    train(model, optimizer, stop, 8)

    resumed, its_optimizer = fresh(overrides, seed=1)
    resumed.load_state_dict(weights)
    its_optimizer.load_state_dict(state)
    train(resumed, its_optimizer, stop, 8)

    for name, weight in model.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    assert not torch.equal(weights["fc.weight"], model.state_dict()["fc.weight"])
    scales = [[group["lr_scale"] for group in one.param_groups] for one in (optimizer, its_optimizer)]
    assert scales[0] == scales[1] == [0.7 ** (4 - layer) for layer in range(5) for _ in range(2)]


@each_optimizer
def test_the_space_for_a_checkpoint_counts_what_the_optimizer_keeps(overrides: list[str]) -> None:
    model, optimizer = fresh(overrides, seed=0)
    train(model, optimizer, 0, 2)
    kept = sum(tensor.numel() for state in optimizer.state.values() for tensor in state.values() if torch.is_tensor(tensor))
    weights = sum(parameter.numel() for parameter in model.parameters())
    config = configured(*overrides)
    assert kept // weights == (0 if config.name in {"sgdw", "lars"} and config.momentum == 0 else optimizer_tensors(config))
