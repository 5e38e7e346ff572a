"""EMA and SWA over 50 steps are torch's, torchvision's, timm's and Composer's, and need nothing saved but themselves."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from src.training.averaging import Average, evaluation_weights
from src.training.weight_means import Ema, EmaThenSwa, Swa

STEPS = 50
Model = Any


class Net(nn.Module):
    """A convolution in channels_last, a norm, two layers, a frozen weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 8)
        self.last = nn.Linear(8, 8)
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.norm(self.conv(images))).mean(dim=(2, 3))
        return self.last(torch.relu(self.fc(features)))


class Odd(Net):
    """One weight has two names (timm would average it twice), one parameter is nothing to average (torch's SWA would fail)."""

    def __init__(self) -> None:
        super().__init__()
        self.last = self.fc
        self.table = nn.Parameter(torch.arange(4), requires_grad=False)


def images(seed: int) -> Tensor:
    return torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def new_model(dtype: torch.dtype = torch.float32, net: type[Net] = Net) -> Model:
    torch.manual_seed(0)
    return net().to(dtype, memory_format=torch.channels_last)


def train(model: Model, after_step: Callable[[int], None], *, first: int = 1, last: int = STEPS) -> None:
    """Train by SGD; after_step(step) is told how many updates are done."""
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.3)
    for step in range(first, last + 1):
        optimizer.zero_grad()
        batch = images(step).to(model.conv.weight.dtype)
        (model(batch) - batch.mean(dim=(1, 2, 3))[:, None]).square().mean().backward()
        optimizer.step()
        after_step(step)


def ema(model: Model, **changes: Any) -> Ema:
    settings = {"decay": 0.9, "every_steps": 1, "decay_warmup": False, "start_step": 0, "recalibrate_images": 16}
    return Ema(model, **(settings | changes))


def swa(model: Model, **changes: Any) -> Swa:
    return Swa(model, **({"every_steps": 1, "start_step": 0, "recalibrate_images": 16} | changes))


def averaged(average: Average) -> dict[str, Tensor]:
    (mean,) = average.state().values()
    return dict(mean)


def equal(ours: dict[str, Tensor], theirs: nn.Module) -> bool:
    other = dict(theirs.named_parameters())
    return all(torch.equal(tensor, other[name]) for name, tensor in ours.items())


def close(ours: dict[str, Tensor], theirs: nn.Module, bound: float) -> bool:
    other = dict(theirs.named_parameters())
    return all(float((tensor - other[name].detach()).abs().max()) <= bound for name, tensor in ours.items())


SCHEDULES = [(1, 0), (3, 0), (1, 7), (4, 10), (32, 0), (7, 21)]


@pytest.mark.parametrize(("every_steps", "start_step"), SCHEDULES)
@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.99998])
def test_ema_is_torchs_bit_for_bit(decay: float, every_steps: int, start_step: int) -> None:
    model = new_model()
    ours = ema(model, decay=decay, every_steps=every_steps, start_step=start_step)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def after_step(step: int) -> None:
        ours.update(model, step, None)
        if step % every_steps == 0 and step > start_step:
            theirs.update_parameters(model)
        assert ours.name == ("ema" if theirs.n_averaged > 0 else "trained")
        assert not ours.state() or equal(averaged(ours), theirs.module)

    train(model, after_step)
    assert int(theirs.n_averaged) == STEPS // every_steps - start_step // every_steps
    assert not torch.equal(averaged(ours)["conv.weight"], model.conv.weight) or decay == 0.0 or every_steps == 32


@pytest.mark.parametrize(("every_steps", "start_step"), SCHEDULES)
def test_swa_is_torchs_bit_for_bit_and_the_mean(every_steps: int, start_step: int) -> None:
    model = new_model()
    ours, seen = swa(model, every_steps=every_steps, start_step=start_step), list[Tensor]()
    theirs = AveragedModel(model, multi_avg_fn=get_swa_multi_avg_fn())

    def after_step(step: int) -> None:
        ours.update(model, step, None)
        if step % every_steps == 0 and step > start_step:
            theirs.update_parameters(model)
            seen.append(model.fc.weight.detach().double())
        assert not ours.state() or equal(averaged(ours), theirs.module)

    train(model, after_step)
    exact = torch.stack(seen).mean(dim=0)
    # Every update rounds twice at most.
    assert float((averaged(ours)["fc.weight"] - exact).abs().max()) <= 2 * len(seen) * 2**-24 * float(exact.abs().max())


@pytest.mark.parametrize("warm", [0, 17])
def test_ema_is_torchvisions_recipe(warm: int) -> None:
    """references/classification: ExponentialMovingAverage, whose n_averaged is set back to 0 during the warm-up."""
    decay, every_steps = 0.97, 2
    model = new_model()
    ours = ema(model, decay=decay, every_steps=every_steps, start_step=warm)

    def rule(mean: Tensor, weight: Tensor, _: Tensor | int) -> Tensor:
        return decay * mean + (1 - decay) * weight

    theirs = AveragedModel(model, avg_fn=rule, use_buffers=True)

    def after_step(step: int) -> None:
        ours.update(model, step, None)
        if step % every_steps == 0:
            theirs.update_parameters(model)
            if step <= warm:
                theirs.n_averaged.fill_(0)
                assert equal(dict(model.named_parameters()), theirs.module), "theirs is a copy of the weights, as ours is meant"
        assert not ours.state() or close(averaged(ours), theirs.module, 1e-6)

    train(model, after_step)
    assert ours.state()


class TensorFlowsWarmup(ModelEmaV3):  # type: ignore[misc]
    """timm's average with the warm-up that decay_warmup means."""

    def get_decay(self, step: int | None = None) -> float:
        assert step is not None
        number = step - self.update_after_step - 1
        return 0.0 if number <= 0 else min(self.decay, (1 + number) / (10 + number))


@pytest.mark.parametrize("warmup", [False, True])
@pytest.mark.parametrize("start_step", [0, 12])
def test_ema_is_timms_bit_for_bit(start_step: int, warmup: bool) -> None:
    model = new_model()
    ours = ema(model, decay=0.7, decay_warmup=warmup, start_step=start_step)
    theirs = (TensorFlowsWarmup if warmup else ModelEmaV3)(model, decay=0.7, update_after_step=start_step)

    def after_step(step: int) -> None:
        ours.update(model, step, None)
        theirs.update(model, step=step)
        assert not ours.state() or equal(averaged(ours), theirs.module)

    train(model, after_step)
    assert ours.state()


def test_a_half_life_is_composers() -> None:
    """Composer's EMA: smoothing = exp(-ln 2 * every / half_life), ema = ema * smoothing + weights * (1 - smoothing)."""
    half_life, every_steps = 20, 5
    model, twin = new_model(), dict[str, Tensor]()
    ours = ema(model, decay=2 ** (-every_steps / half_life), every_steps=every_steps)
    smoothing = torch.exp(-torch.log(torch.tensor(2.0, dtype=torch.float64)) * every_steps / half_life)

    def after_step(step: int) -> None:
        ours.update(model, step, None)
        if step % every_steps == 0:
            for name, weight in model.named_parameters():
                now = weight.detach().double()
                twin[name] = twin[name] * smoothing + now * (1 - smoothing) if name in twin else now

    train(model, after_step)
    assert all(float((mean - twin[name]).abs().max()) < 1e-6 for name, mean in averaged(ours).items())


def test_after_a_half_life_half_is_left() -> None:
    model = nn.Linear(1, 1, bias=False).double()
    average = ema(model, decay=2 ** (-4 / 20), every_steps=4)
    with torch.no_grad():
        model.weight.fill_(1.0)
        average.update(model, 4, None)
        model.weight.fill_(0.0)
    for step in range(5, 25):
        average.update(model, step, None)
    assert float(averaged(average)["weight"]) == pytest.approx(0.5, rel=1e-12)


def test_float64_is_averaged_in_float64() -> None:
    model, seen = new_model(torch.float64), list[Tensor]()
    average = swa(model)

    def after_step(step: int) -> None:
        average.update(model, step, None)
        seen.append(model.fc.weight.detach().clone())

    train(model, after_step)
    torch.testing.assert_close(averaged(average)["fc.weight"], torch.stack(seen).mean(dim=0), rtol=1e-13, atol=1e-15)


KINDS: dict[str, Callable[[Model], Any]] = {
    "ema": lambda model: ema(model, decay_warmup=True, every_steps=3, start_step=4),
    "swa": lambda model: swa(model, every_steps=5, start_step=11),
    "ema, then swa": lambda model: EmaThenSwa(ema(model, every_steps=2), swa(model, every_steps=5, start_step=30)),
}
each_kind = pytest.mark.parametrize("build", KINDS.values(), ids=KINDS)


@each_kind
@pytest.mark.parametrize("interrupted", [1, 6, 7, 15, 33, 35, 36])
def test_an_average_goes_on_from_its_state_alone(build: Callable[[Model], Any], interrupted: int) -> None:
    whole = new_model()
    its = build(whole)
    train(whole, lambda step: its.update(whole, step, None))
    resumed = new_model()
    before = build(resumed)
    train(resumed, lambda step: before.update(resumed, step, None), last=interrupted)
    after = build(resumed)
    after.load(copy.deepcopy(before.state()))
    assert (after.name, after.recalibrate_images) == (before.name, before.recalibrate_images)
    train(resumed, lambda step: after.update(resumed, step, None), first=interrupted + 1)
    assert its.state().keys() == after.state().keys()
    assert all(torch.equal(tensor, averaged(after)[name]) for name, tensor in averaged(its).items())


@each_kind
def test_a_device_that_says_moved_changes_no_bit(build: Callable[[Model], Any]) -> None:
    model = new_model()
    plain, told = build(model), build(model)

    def after_step(step: int) -> None:
        plain.update(model, step, None)
        told.update(model, step, torch.ones(()))

    train(model, after_step)
    assert all(torch.equal(tensor, averaged(told)[name]) for name, tensor in averaged(plain).items())


@each_kind
def test_a_skipped_step_moves_no_average(build: Callable[[Model], Any]) -> None:
    model = new_model()
    average, moves = build(model), 0

    def after_step(step: int) -> None:
        nonlocal moves
        before = copy.deepcopy(average.state())
        skipped = step % 6 == 0 or step in {40, 50}
        average.update(model, step, torch.tensor(0.0 if skipped else 1.0))
        if before and before.keys() == average.state().keys():  # otherwise it begins here, with a copy
            (old,) = before.values()
            moved = any(not torch.equal(tensor, old[name]) for name, tensor in averaged(average).items())
            assert not (moved and skipped)
            moves += moved

    train(model, after_step)
    assert moves >= 4


def test_the_ema_of_steps_that_moved_is_the_ema_without_the_others() -> None:
    """A reference loop that looks at the scaler and leaves skipped steps out; the weights rest there."""
    model, twin = new_model(), dict[str, Tensor]()
    average, lost = ema(model, decay=0.8), {1: False, 5: True, 6: True, 23: True, 50: True}

    def after_step(step: int) -> None:
        skipped = lost.get(step, False)
        average.update(model, step, torch.tensor(float(not skipped)))
        if not skipped:
            for name, weight in model.named_parameters():
                now = weight.detach().double()
                twin[name] = twin[name] * 0.8 + now * (1 - 0.8) if name in twin else now

    train(model, after_step)
    assert all(float((mean - twin[name]).abs().max()) < 1e-6 for name, mean in averaged(average).items())


def test_until_it_begins_an_average_is_the_trained_weights_and_says_so() -> None:
    model = new_model()
    average = EmaThenSwa(ema(model, every_steps=3, start_step=4), swa(model, every_steps=10, start_step=21))
    names = {}

    def after_step(step: int) -> None:
        average.update(model, step, None)
        names[step] = average.name
        assert average.recalibrate_images == (0 if average.name == "trained" else 16)
        trained = model.conv.weight.detach().clone()
        with evaluation_weights(model, average, iter([images(0)])):
            same = torch.equal(model.conv.weight, trained)
        assert same == (average.name == "trained" or step in {6, 30})  # at 6 and 30 they begin, with a copy

    train(model, after_step, last=34)
    spelt = ["trained"] * 5 + ["ema"] * 24 + ["swa"] * 5
    assert list(names.values()) == spelt


def snapshot(model: Model) -> tuple[Any, ...]:
    return copy.deepcopy((dict(model.state_dict()), model.training, [module.training for module in model.modules()]))


@each_kind
def test_evaluating_holds_the_mean_and_gives_the_training_state_back(build: Callable[[Model], Any]) -> None:
    model = new_model(net=Odd)
    average = build(model)
    train(model, lambda step: average.update(model, step, None))
    state, training, modes = snapshot(model)
    mean = copy.deepcopy(averaged(average))
    with evaluation_weights(model, average, iter([images(0), images(1)])):
        assert equal(mean, model)
        assert not torch.equal(model.norm.running_mean, state["norm.running_mean"])
        at_mean = torch.stack([model.conv(images(seed)).mean(dim=(0, 2, 3)) for seed in (0, 1)]).mean(dim=0)
        torch.testing.assert_close(model.norm.running_mean, at_mean, rtol=1e-4, atol=1e-6)
        assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
        assert model.last.weight is model.fc.weight
        assert torch.equal(model.table, torch.arange(4))
    after, again, same_modes = snapshot(model)
    assert all(torch.equal(tensor, after[name]) for name, tensor in state.items())
    assert (again, same_modes) == (training, modes)
    assert all(torch.equal(tensor, averaged(average)[name]) for name, tensor in mean.items())


def test_without_recalibration_the_trained_statistics_serve() -> None:
    model, unused = new_model(), iter([images(0)])
    average = ema(model, recalibrate_images=0)
    train(model, lambda step: average.update(model, step, None))
    trained = model.norm.running_mean.clone()
    with evaluation_weights(model, average, unused):
        assert equal(averaged(average), model)
        assert torch.equal(model.norm.running_mean, trained)
    assert len(list(unused)) == 1


def test_the_mean_keeps_the_weights_layout() -> None:
    model = new_model()
    average = ema(model)
    average.update(model, 1, None)
    loaded = ema(model)
    loaded.load({"ema": {name: tensor.contiguous() for name, tensor in averaged(average).items()}})
    for mean in (average, loaded):
        assert averaged(mean)["conv.weight"].is_contiguous(memory_format=torch.channels_last)


def test_once_swa_has_begun_the_ema_is_let_go() -> None:
    model = new_model()
    exponential, plain = ema(model), swa(model, every_steps=10, start_step=10)
    average = EmaThenSwa(exponential, plain)
    held: list[Sequence[bool]] = []

    def after_step(step: int) -> None:
        average.update(model, step, None)
        held.append((exponential.begun, plain.begun))

    train(model, after_step, last=30)
    assert held == [(True, False)] * 19 + [(False, True)] * 11
