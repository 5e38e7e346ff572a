"""The rate at every step against the scheduler that it is named after: torch's, timm's, torchvision's recipe, NVIDIA's, FFCV's.

Every rate agrees within FEW_ULPS of the largest: only the order of a few operations differs. Where torch makes 112,590 rates, each
from the one before, its own rounding adds up to 1.4e-13 of the peak: RECURSIVE bounds that, relative to each rate.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import nn, optim
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

from src.config import Config, load
from src.config.schedule import Constant, Cosine, Exponential, OneCycle, Polynomial, ScheduleConfig, Step, Triangular
from src.training.schedule import build_lr_at, build_lr_factor, image_size_at

FEW_ULPS = 4e-15
RECURSIVE = 1e-12
IMAGENET_STEPS = 1_281_167 // 1024


def ours(config: ScheduleConfig, *, steps_per_epoch: int, epochs: int, peak: float) -> list[float]:
    total = steps_per_epoch * epochs
    lr_factor = build_lr_factor(config, steps_per_epoch=steps_per_epoch, total_steps=total)
    return [peak * lr_factor(step) for step in range(total)]


def torchs(build: Callable[[optim.Optimizer], Any], *, peak: float, steps: int) -> list[float]:
    """The rates that an optimizer sees when its scheduler is stepped after each of its steps."""
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=peak)
    scheduler = build(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


def of_epochs(rates: list[float], steps_per_epoch: int) -> list[float]:
    return [rate for rate in rates for _ in range(steps_per_epoch)]


def agree(mine: list[float], theirs: list[float]) -> None:
    assert len(mine) == len(theirs)
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=FEW_ULPS * max(theirs))


def warm_up_then(main: Callable[[optim.Optimizer], Any], *, start: float, steps: int) -> Callable[[optim.Optimizer], Any]:
    """torchvision's and the A40 project's pair: LinearLR and then the main scheduler."""

    def build(optimizer: optim.Optimizer) -> Any:
        linear = lr_scheduler.LinearLR(optimizer, start_factor=start, total_iters=steps)
        return lr_scheduler.SequentialLR(optimizer, [linear, main(optimizer)], milestones=[steps])

    return build


@pytest.mark.parametrize("warmup_epochs", [2, 5])
@pytest.mark.parametrize("floor", [0.0, 0.01])
def test_cosine_by_step_is_torchs_pair(warmup_epochs: int, floor: float) -> None:
    warmup, total = warmup_epochs * 13, 30 * 13
    config = Cosine(
        name="cosine", by="step", warmup_epochs=warmup_epochs, warmup_from=0.01, hold_epochs=0, floor=floor, counts_warmup=False
    )
    pair = warm_up_then(
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=total - warmup, eta_min=0.3 * floor),
        start=0.01,
        steps=warmup,
    )
    theirs = torchs(pair, peak=0.3, steps=total)
    agree(ours(config, steps_per_epoch=13, epochs=30, peak=0.3), theirs)


def test_the_a40_adam_schedule() -> None:
    """The headline recipe: 90 epochs of 1,251 steps, 5 of them warm-up from 1 %, a cosine from 1e-3 down to 1e-5."""
    config = Cosine(name="cosine", by="step", warmup_epochs=5, warmup_from=0.01, hold_epochs=0, floor=0.01, counts_warmup=False)
    mine = ours(config, steps_per_epoch=IMAGENET_STEPS, epochs=90, peak=1e-3)
    assert len(mine) == 112_590
    assert mine[0] == 1e-5
    assert mine[6_255] == max(mine) == 1e-3
    assert f"{mine[56_295]:.4e}" == "5.5067e-04"
    assert mine[112_589] == pytest.approx(1e-5, rel=1e-6)
    pair = warm_up_then(
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=112_590 - 6_255, eta_min=1e-5), start=0.01, steps=6_255
    )
    np.testing.assert_allclose(mine, torchs(pair, peak=1e-3, steps=112_590), rtol=RECURSIVE)


def test_the_torchvision_v2_recipe_by_epoch() -> None:
    """references/classification: LinearLR(start_factor=.01, total_iters=5), CosineAnnealingLR(T_max=595), stepped once an epoch."""
    config = Cosine(name="cosine", by="epoch", warmup_epochs=5, warmup_from=0.01, hold_epochs=0, floor=0.0, counts_warmup=False)
    pair = warm_up_then(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=595, eta_min=0.0), start=0.01, steps=5)
    theirs = of_epochs(torchs(pair, peak=0.5, steps=600), 7)
    agree(ours(config, steps_per_epoch=7, epochs=600, peak=0.5), theirs)


@pytest.mark.parametrize(("epochs", "peak"), [(600, 5e-3), (300, 5e-3), (100, 8e-3)], ids=["a1", "a2", "a3"])
def test_timms_cosine_by_epoch_counts_the_warm_up(epochs: int, peak: float) -> None:
    theirs = []
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=peak)
    scheduler = CosineLRScheduler(optimizer, t_initial=epochs, lr_min=1e-6, warmup_t=5, warmup_lr_init=1e-6, warmup_prefix=False)
    for epoch in range(epochs):
        scheduler.step(epoch)
        theirs.append(float(optimizer.param_groups[0]["lr"]))
    config = Cosine(
        name="cosine",
        by="epoch",
        warmup_epochs=5,
        warmup_from=1e-6 / peak,
        hold_epochs=0,
        floor=1e-6 / peak,
        counts_warmup=True,
    )
    mine = ours(config, steps_per_epoch=3, epochs=epochs, peak=peak)
    agree(mine, of_epochs(theirs, 3))
    assert mine[15] < peak, "the fifth epoch is already on the cosine, below the peak"


def test_timms_cosine_by_step() -> None:
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.8)
    scheduler = CosineLRScheduler(optimizer, t_initial=400, lr_min=0.008, warmup_t=50, warmup_lr_init=0.08, t_in_epochs=False)
    theirs = []
    for step in range(400):
        scheduler.step_update(step)
        theirs.append(float(optimizer.param_groups[0]["lr"]))
    config = Cosine(name="cosine", by="step", warmup_epochs=5, warmup_from=0.1, hold_epochs=0, floor=0.01, counts_warmup=True)
    agree(ours(config, steps_per_epoch=10, epochs=40, peak=0.8), theirs)


@pytest.mark.parametrize("warmup_epochs", [0, 1, 15, 49])
def test_one_cycle_is_torchs(warmup_epochs: int) -> None:
    div, final_div, total = 25.0, 1e4, 50 * 11
    config = OneCycle(name="one_cycle", by="step", warmup_epochs=warmup_epochs, warmup_from=1 / div, floor=1 / (div * final_div))
    theirs = torchs(
        lambda optimizer: lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=0.175,
            total_steps=total,
            pct_start=warmup_epochs / 50,
            div_factor=div,
            final_div_factor=final_div,
        ),
        peak=0.175,
        steps=total,
    )
    mine = ours(config, steps_per_epoch=11, epochs=50, peak=0.175)
    agree(mine, theirs)
    assert mine[-1] == pytest.approx(0.175 / (div * final_div), rel=1e-12)


@pytest.mark.parametrize("warmup_epochs", [0, 5])
@pytest.mark.parametrize("by", ["step", "epoch"])
def test_step_is_torchs(by: Literal["step", "epoch"], warmup_epochs: int) -> None:
    """torchvision's first recipe: StepLR(step_size=30, gamma=.1); with a warm-up its 30 epochs begin after it."""
    config = Step(name="step", by=by, warmup_epochs=warmup_epochs, warmup_from=0.01, every_epochs=30, gamma=0.1, floor=0.0)
    scale = 1 if by == "epoch" else 7

    def main(optimizer: optim.Optimizer) -> Any:
        return lr_scheduler.StepLR(optimizer, step_size=30 * scale, gamma=0.1)

    build = warm_up_then(main, start=0.01, steps=warmup_epochs * scale) if warmup_epochs else main
    theirs = torchs(build, peak=0.1, steps=90 * scale)
    agree(ours(config, steps_per_epoch=7, epochs=90, peak=0.1), of_epochs(theirs, 7 // scale))


def test_exponential_is_torchs_by_epoch_and_by_step() -> None:
    def theirs(gamma: float, scale: int) -> list[float]:
        pair = warm_up_then(lambda optimizer: lr_scheduler.ExponentialLR(optimizer, gamma), start=0.5, steps=4 * scale)
        return torchs(pair, peak=0.1, steps=60 * scale)

    common: dict[str, Any] = {"name": "exponential", "warmup_epochs": 4, "warmup_from": 0.5, "gamma": 0.95, "floor": 0.0}
    by_epoch = ours(Exponential(by="epoch", **common), steps_per_epoch=8, epochs=60, peak=0.1)
    agree(by_epoch, of_epochs(theirs(0.95, 1), 8))
    by_step = ours(Exponential(by="step", **common), steps_per_epoch=8, epochs=60, peak=0.1)
    agree(by_step, theirs(0.95 ** (1 / 8), 8))


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.7])
def test_polynomial_is_torchs(power: float) -> None:
    config = Polynomial(name="polynomial", by="step", warmup_epochs=3, warmup_from=0.1, power=power, floor=0.0)
    pair = warm_up_then(
        lambda optimizer: lr_scheduler.PolynomialLR(optimizer, total_iters=27 * 9, power=power), start=0.1, steps=27
    )
    theirs = torchs(pair, peak=2.0, steps=30 * 9)
    agree(ours(config, steps_per_epoch=9, epochs=30, peak=2.0), theirs)


def test_constant_is_torchs_linear_warm_up() -> None:
    config = Constant(name="constant", by="step", warmup_epochs=5, warmup_from=0.01)
    build = warm_up_then(lambda optimizer: lr_scheduler.ConstantLR(optimizer, factor=1.0), start=0.01, steps=50)
    agree(ours(config, steps_per_epoch=10, epochs=20, peak=6.0), torchs(build, peak=6.0, steps=200))


def test_a_lambda_of_ours_in_torchs_scheduler_is_bit_equal() -> None:
    config = Polynomial(name="polynomial", by="step", warmup_epochs=2.5, warmup_from=0.3, power=1.7, floor=0.2)
    lr_factor = build_lr_factor(config, steps_per_epoch=10, total_steps=200)
    theirs = torchs(lambda optimizer: lr_scheduler.LambdaLR(optimizer, lr_factor), peak=0.7, steps=200)
    assert ours(config, steps_per_epoch=10, epochs=20, peak=0.7) == theirs


@pytest.mark.parametrize("epochs", [16, 24, 32, 40, 56, 88])
def test_ffcvs_triangle(epochs: int) -> None:
    """ffcv-imagenet: np.interp over epochs (0, 2, end) of (1e-4, 1, 0) x lr, and between two epochs by the iteration."""

    def at_epoch(epoch: int) -> float:
        return float(np.interp(epoch, [0, 2, epochs], [1e-4 * 1.7, 1.7, 0.0]))

    theirs: list[float] = []
    for epoch in range(epochs):
        theirs += np.interp(np.arange(37), [0, 37], [at_epoch(epoch), at_epoch(epoch + 1)]).tolist()
    config = Triangular(name="triangular", by="step", warmup_epochs=2, warmup_from=1e-4, floor=0.0)
    agree(ours(config, steps_per_epoch=37, epochs=epochs, peak=1.7), theirs)


@pytest.mark.parametrize(("epochs", "floor"), [(90, 0.0), (250, 0.0), (50, 0.1)])
def test_nvidias_cosine_by_epoch(epochs: int, floor: float) -> None:
    """DeepLearningExamples: (epoch + 1) / 8 in the warm-up, so that epochs 7 and 8 both have the peak; then a cosine."""
    theirs = []
    for epoch in range(epochs):
        if epoch < 8:
            theirs.append(2.048 * (epoch + 1) / 8)
        else:
            theirs.append(2.048 * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (epoch - 8) / (epochs - 8)))))
    config = Cosine(name="cosine", by="epoch", warmup_epochs=7, warmup_from=1 / 8, hold_epochs=1, floor=floor, counts_warmup=False)
    agree(ours(config, steps_per_epoch=5, epochs=epochs, peak=2.048), of_epochs(theirs, 5))


@pytest.mark.parametrize("ramp", [(11, 13), (17, 20), (23, 27), (29, 34), (41, 48), (65, 76)])
def test_ffcvs_image_sizes(ramp: tuple[int, int]) -> None:
    """ffcv-imagenet's recipes: 160 to 192 px over the ramp, by np.interp and np.round to a multiple of 32."""
    first, last = ramp
    config = load(
        [
            "data=synthetic",
            "data.image_size=192",
            "data.resize_size=256",
            "data.ramp_from_size=160",
            f"data.ramp_from_epoch={first}",
            f"data.ramp_to_epoch={last}",
        ]
    )
    for epoch in range(90):
        if epoch <= first:
            size = 160
        elif epoch >= last:
            size = 192
        else:
            size = int(np.round(np.interp([epoch], [first, last], [160, 192])[0] / 32)) * 32
        assert image_size_at(epoch, config.data) == size


def swa(*more: str) -> Config:
    return load(
        [
            "data=synthetic",
            "epochs=30",
            "average=swa",
            "average.swa_start_epoch=20",
            "average.swa_lr=0.03",
            "schedule=cosine",
            *more,
        ]
    )


@pytest.mark.parametrize("anneal_epochs", [0, 1, 4, 10, 15])
@pytest.mark.parametrize("average", ["swa", "ema_swa"])
def test_swas_rate_is_torchs(average: str, anneal_epochs: int) -> None:
    """SWALR takes over at the first step of swa_start_epoch, counting its annealing in steps."""
    config = swa(f"average={average}", f"average.swa_anneal_epochs={anneal_epochs}", "optim.peak_lr=0.4")
    mine_at = build_lr_at(config, steps_per_epoch=9, total_steps=270)
    lr_factor = build_lr_factor(config.schedule, steps_per_epoch=9, total_steps=270)
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.4)
    scheduler: Any = lr_scheduler.LambdaLR(optimizer, lr_factor)
    theirs = []
    for step in range(270):
        if step == 180:
            scheduler = SWALR(optimizer, swa_lr=0.03, anneal_epochs=9 * anneal_epochs, anneal_strategy="cos")
        theirs.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    assert [mine_at(step) for step in range(180)] == theirs[:180]
    agree([mine_at(step) for step in range(270)], theirs)
