"""Evaluating at other weights gives the training state back to the last bit, and the weights are the ones schedulefree means."""

import copy
from typing import Any

import pytest
import schedulefree
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from src.training.averaging import (
    Average,
    NoAverage,
    ScheduleFreeAverage,
    evaluation_weights,
)
from src.training.batch_norm import load_buffers, own_buffers, recalibrate_batch_norm

OPTIMIZERS = ("sf_sgd", "sf_adamw")


class Net(nn.Module):
    """Two norms of different momenta, dropout between, and a buffer that no checkpoint holds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6, momentum=0.3)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(6, 5)
        self.norm2 = nn.BatchNorm1d(5, momentum=None)
        self.register_buffer("scratch", torch.tensor(7.0), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.dropout(torch.relu(self.norm(self.conv(images))).mean(dim=(2, 3)))
        return self.norm2(self.fc(features))


def images(count: int, size: int = 8, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(16, 3, size, size, generator=generator) for _ in range(count)]


def train(model: nn.Module, optimizer: Optimizer, batches: list[Tensor]) -> None:
    for batch in batches:
        torch.manual_seed(0)
        model(batch).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def trained(name: str) -> tuple[nn.Module, Optimizer]:
    torch.manual_seed(0)
    model = Net()
    if name == "sf_sgd":
        optimizer: Any = schedulefree.SGDScheduleFree(model.parameters(), lr=0.3, momentum=0.9, weight_decay=1e-3)
    else:
        optimizer = schedulefree.AdamWScheduleFree(model.parameters(), lr=0.03, weight_decay=1e-2)
    optimizer.train()
    train(model, optimizer, images(5))
    return model, optimizer


def snapshot(model: nn.Module, optimizer: Optimizer) -> tuple[Any, ...]:
    weights = {**model.state_dict(), **dict(model.named_buffers())}
    return copy.deepcopy((weights, optimizer.state_dict(), model.training, [module.training for module in model.modules()]))


def same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right)


def schedule_free(optimizer: Optimizer) -> Average:
    return ScheduleFreeAverage(optimizer, recalibrate_images=48)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_training_state_comes_back_bit_for_bit(name: str) -> None:
    model, optimizer = trained(name)
    before = snapshot(model, optimizer)
    with evaluation_weights(model, schedule_free(optimizer), iter(images(3))):
        assert not model.training
        assert not torch.equal(model.state_dict()["conv.weight"], before[0]["conv.weight"])
        model(images(1)[0])
    assert same(snapshot(model, optimizer), before)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_as_if_nothing_had_been_evaluated(name: str) -> None:
    (evaluated, its_optimizer), (undisturbed, other_optimizer) = trained(name), trained(name)
    with evaluation_weights(evaluated, schedule_free(its_optimizer), iter(images(3))):
        pass
    for model, optimizer in ((evaluated, its_optimizer), (undisturbed, other_optimizer)):
        train(model, optimizer, images(4, seed=2))
    assert same(snapshot(evaluated, its_optimizer), snapshot(undisturbed, other_optimizer))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_library_alone_would_change_bits(name: str) -> None:
    model, optimizer = trained(name)
    before = snapshot(model, optimizer)
    optimizer.eval()  # type: ignore[attr-defined]
    optimizer.train()  # type: ignore[attr-defined]
    assert not same(snapshot(model, optimizer), before)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_exception_in_evaluation_gives_the_training_state_back_too(name: str) -> None:
    model, optimizer = trained(name)
    before = snapshot(model, optimizer)
    with pytest.raises(KeyError), evaluation_weights(model, schedule_free(optimizer), iter(images(3))):
        raise KeyError
    assert same(snapshot(model, optimizer), before)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_weights_are_the_librarys_x(name: str) -> None:
    model, optimizer = trained(name)
    theirs, their_optimizer = copy.deepcopy((model, optimizer))
    their_optimizer.eval()  # type: ignore[attr-defined]
    with evaluation_weights(model, schedule_free(optimizer), iter(images(3))):
        for (key, ours), parameter in zip(model.named_parameters(), theirs.parameters(), strict=True):
            assert torch.equal(ours, parameter), key


def test_x_is_the_mean_of_the_fast_weights() -> None:
    """With a constant rate and no weighting, Defazio et al. 2024, equation 5: x is the plain mean of all z."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = schedulefree.SGDScheduleFree([weight], lr=0.1, momentum=0.9)
    optimizer.train()
    z, fast = weight.detach().clone().double(), []
    for _ in range(20):
        weight.square().sum().backward()
        gradient = weight.grad
        assert gradient is not None
        z = z - 0.1 * gradient.double()
        fast.append(z)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    holder = nn.Module()
    holder.weight = weight
    with evaluation_weights(holder, schedule_free(optimizer), iter(())):
        torch.testing.assert_close(weight.detach().double(), torch.stack(fast).mean(dim=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_batch_norm_is_recalibrated_at_the_evaluation_weights(name: str) -> None:
    model, optimizer = trained(name)
    norms = {"norm": model.norm, "norm2": model.norm2}
    inputs: dict[str, list[Tensor]] = {key: [] for key in norms}
    dropped: list[bool] = []
    hooks = [
        norm.register_forward_pre_hook(lambda _, args, key=key: inputs[key].append(args[0].detach().double()))
        for key, norm in norms.items()
    ]
    hooks.append(model.dropout.register_forward_hook(lambda _, args, output: dropped.append(not torch.equal(args[0], output))))
    batches = images(3, seed=5)
    with evaluation_weights(model, schedule_free(optimizer), iter(batches)):
        assert not any(dropped)
        assert len(dropped) == 3
        for key, norm in norms.items():
            per_batch = [tensor.transpose(0, 1).flatten(1) for tensor in inputs[key]]
            mean = torch.stack([values.mean(dim=1) for values in per_batch]).mean(dim=0)
            variance = torch.stack([values.var(dim=1, unbiased=True) for values in per_batch]).mean(dim=0)
            torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(norm.running_var.double(), variance, rtol=1e-4, atol=1e-5)
        first = torch.stack([model.conv(batch).detach().mean(dim=(0, 2, 3)) for batch in batches]).mean(dim=0)
        torch.testing.assert_close(model.norm.running_mean, first, rtol=1e-4, atol=1e-5)  # model.conv is at x here
        assert (model.norm.momentum, model.norm2.momentum) == (0.3, None)
    for hook in hooks:
        hook.remove()


def test_norms_without_statistics_and_models_without_norms_are_left_alone() -> None:
    bare = nn.Sequential(nn.Flatten(), nn.Linear(192, 2), nn.BatchNorm1d(2, track_running_stats=False))
    used = iter(images(2))
    recalibrate_batch_norm(bare, used)
    assert len(list(used)) == 2
    assert bare.training


def test_trained_weights_are_evaluated_as_they_are() -> None:
    model, optimizer = trained("sf_sgd")
    before = snapshot(model, optimizer)
    unused = iter(images(2))
    with evaluation_weights(model, NoAverage(), unused):
        assert not model.training
        assert same(dict(model.state_dict()), {key: value for key, value in before[0].items() if key != "scratch"})
    assert len(list(unused)) == 2
    assert same(snapshot(model, optimizer), before)


def test_buffers_that_no_state_dict_holds_do_not_travel() -> None:
    model = Net()
    held = own_buffers(model)
    assert "scratch" not in held
    assert held.keys() <= model.state_dict().keys()
    held["norm.running_mean"] += 1
    load_buffers(model, held)
    assert torch.equal(model.norm.running_mean, torch.ones(6))
    assert float(model.scratch) == 7.0
