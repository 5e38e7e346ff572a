"""Which type computes what; clipping as torch's own; and the steps that the fp16 scaler skips, counted in all and in a row."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from src.training.precision import SkippedSteps, choose_precision, clip

CPU = torch.device("cpu")
OFF = GradScaler("cpu", enabled=False)


@pytest.mark.parametrize(
    ("name", "decided", "weights", "inputs", "multiplies_in"),
    [
        ("auto", "fp32", torch.float32, torch.float32, torch.float32),
        ("fp32", "fp32", torch.float32, torch.float32, torch.float32),
        ("bf16", "bf16", torch.float32, torch.bfloat16, torch.bfloat16),
        ("fp16", "fp16", torch.float32, torch.float16, torch.float16),
        ("fp64", "fp64", torch.float64, torch.float64, torch.float64),
    ],
)
def test_every_precision_on_a_cpu(
    name: Any, decided: str, weights: torch.dtype, inputs: torch.dtype, multiplies_in: torch.dtype
) -> None:
    precision = choose_precision(name, CPU)
    assert (precision.name, precision.weights, precision.inputs, precision.device_type) == (decided, weights, inputs, "cpu")
    model = nn.Linear(4, 2).to(precision.weights)
    with precision.autocast():
        assert model(torch.ones(1, 4, dtype=precision.inputs)).dtype == multiplies_in
    assert model.weight.dtype == weights


def with_gradients(scale: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3), nn.Linear(3, 2, bias=False))
    model[2].weight.requires_grad = False  # a frozen layer has no gradient
    (model(torch.randn(7, 5)).square().sum() * scale).backward()
    return model


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("max_norm", [0.01, 1.0, 1e6])
def test_clip_equals_torch(max_norm: float) -> None:
    ours, theirs = with_gradients(), with_gradients()
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.1)
    norm = clip(OFF, optimizer, ours, max_norm, measure=False)
    expected = nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)
    assert norm is not None
    assert torch.equal(norm, expected)
    assert all(torch.equal(a, b) for a, b in zip(gradients(ours), gradients(theirs), strict=True))


def test_measuring_returns_the_norm_and_changes_nothing() -> None:
    model, untouched = with_gradients(), with_gradients()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert clip(OFF, optimizer, model, None, measure=False) is None
    norm = clip(OFF, optimizer, model, None, measure=True)
    assert norm is not None
    by_hand = sum(float(gradient.double().square().sum()) for gradient in gradients(untouched)) ** 0.5
    assert float(norm) == pytest.approx(by_hand, rel=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(gradients(model), gradients(untouched), strict=True))


def test_under_a_scaler_the_true_gradients_are_clipped() -> None:
    scaler = GradScaler("cpu", init_scale=1024.0)
    scaled, plain = with_gradients(1024.0), with_gradients()
    scaler.scale(torch.zeros(1))  # makes the scale, as the loop does by scaling the loss
    norm = clip(scaler, torch.optim.SGD(scaled.parameters(), lr=0.1), scaled, 1.0, measure=False)
    expected = nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
    torch.testing.assert_close(norm, expected)
    for ours, theirs in zip(gradients(scaled), gradients(plain), strict=True):
        torch.testing.assert_close(ours, theirs)


class Overflowing:
    """A model trained under fp16's scaler, some steps of which overflow."""

    def __init__(self, *, growth_interval: int = 2000) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(3, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, fused=True)
        self.scaler = GradScaler("cpu", growth_interval=growth_interval)
        self.skipped = SkippedSteps(self.scaler, CPU)

    def step(self, *, overflow: bool) -> bool:
        """Return whether the weights moved."""
        before = self.model.weight.detach().clone()
        loss = self.model(torch.ones(2, 3)).sum() * (float("inf") if overflow else 1.0)
        self.scaler.scale(loss).backward()
        clip(self.scaler, self.optimizer, self.model, None, measure=False)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.skipped.update()
        self.optimizer.zero_grad(set_to_none=True)
        return not torch.equal(before, self.model.weight)


def test_skipped_steps_are_counted_in_all_and_in_a_row() -> None:
    training = Overflowing()
    seen = []
    for overflow in (True, False, True, True, False, True, True, True):
        assert training.step(overflow=overflow) is not overflow
        seen.append(training.skipped.counts())
    assert seen == [(1, 1), (1, 0), (2, 1), (3, 2), (3, 0), (4, 1), (5, 2), (6, 3)]


def test_a_scale_that_grows_is_no_skipped_step() -> None:
    training = Overflowing(growth_interval=2)
    for _ in range(6):
        training.step(overflow=False)
    assert training.scaler.get_scale() > 65536
    assert training.skipped.counts() == (0, 0)
    training.step(overflow=True)
    assert training.skipped.counts() == (1, 1)


def test_counts_go_on_from_their_state() -> None:
    whole = Overflowing()
    for overflow in (True, False, True, True):
        whole.step(overflow=overflow)
    resumed = Overflowing()
    resumed.scaler.load_state_dict(copy.deepcopy(whole.scaler.state_dict()))
    resumed.skipped.load(whole.skipped.state())
    for overflow in (True, False, True):
        for training in (whole, resumed):
            training.step(overflow=overflow)
        assert resumed.skipped.counts() == whole.skipped.counts()
    assert whole.skipped.counts() == (5, 1)
    assert all(type(number) is int for number in whole.skipped.state())


def test_the_first_step_after_a_resume_is_not_taken_for_a_skipped_one() -> None:
    whole = Overflowing()
    whole.step(overflow=True)
    resumed = Overflowing()
    resumed.scaler.load_state_dict(whole.scaler.state_dict())
    resumed.skipped.load(whole.skipped.state())
    resumed.step(overflow=False)
    assert resumed.skipped.counts() == (1, 0)


def test_without_a_scaler_nothing_is_skipped() -> None:
    skipped = SkippedSteps(OFF, CPU)
    skipped.update()
    assert skipped.counts() == (0, 0)
    skipped.load(skipped.state())
    assert skipped.state() == [0, 0]
