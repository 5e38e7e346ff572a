"""The rate is a pure function of the step: its ends, its peak, its floor, and a slow twin."""

import itertools
import math

import pytest
from torch import nn, optim

from src.config.schedule import Constant, Cosine
from src.training.schedule import build_lr_factor, image_size_at

STEPS_PER_EPOCH, TOTAL = 10, 200


def cosine(*, warmup_epochs: float = 2.0, warmup_from: float = 0.1, floor: float = 0.05) -> Cosine:
    return Cosine(name="cosine", warmup_epochs=warmup_epochs, warmup_from=warmup_from, floor=floor)


def factors(config: Cosine | Constant) -> list[float]:
    lr_factor = build_lr_factor(config, steps_per_epoch=STEPS_PER_EPOCH, total_steps=TOTAL)
    return [lr_factor(step) for step in range(TOTAL + 1)]


def test_the_warm_up_is_linear_from_its_start_to_the_peak() -> None:
    values = factors(cosine())
    assert values[0] == pytest.approx(0.1)
    assert values[10] == pytest.approx(0.55)
    assert values[19] == pytest.approx(0.1 + 0.9 * 19 / 20)
    assert values[20] == 1.0
    assert max(values) == values[20]


def test_the_cosine_falls_from_the_peak_to_the_floor() -> None:
    values = factors(cosine())
    assert values[TOTAL] == pytest.approx(0.05)
    assert values[110] == pytest.approx((1 + 0.05) / 2)  # half-way between the end of the warm-up and the end
    assert all(before > after for before, after in itertools.pairwise(values[20:]))
    assert min(values[20:TOTAL]) > 0.05


def test_cosine_equals_a_slow_twin() -> None:
    for epochs, start, floor in ((0.0, 1.0, 0.0), (0.5, 0.01, 0.1), (20.0, 0.5, 0.0)):
        warmup = round(epochs * STEPS_PER_EPOCH)
        twin = []
        for step in range(TOTAL + 1):
            if step < warmup:
                twin.append(start + (1 - start) * (step / warmup))
            elif warmup == TOTAL:
                twin.append(1.0)
            else:
                angle = (step - warmup) / (TOTAL - warmup) * math.pi
                twin.append(floor + (1 - floor) * (1 + math.cos(angle)) / 2)
        assert factors(cosine(warmup_epochs=epochs, warmup_from=start, floor=floor)) == pytest.approx(twin, abs=1e-12)


def test_cosine_without_warm_up_equals_torch() -> None:
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=TOTAL)
    theirs = []
    for _ in range(TOTAL):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert factors(cosine(warmup_epochs=0, floor=0))[:TOTAL] == pytest.approx(theirs, abs=1e-9)


def test_constant_stays_at_the_peak_after_its_warm_up() -> None:
    values = factors(Constant(name="constant", warmup_epochs=1.5, warmup_from=0.2))
    assert values[0] == pytest.approx(0.2)
    assert values[14] == pytest.approx(0.2 + 0.8 * 14 / 15)
    assert set(values[15:]) == {1.0}


def test_a_part_of_an_epoch_of_warm_up_is_rounded_to_steps() -> None:
    values = factors(cosine(warmup_epochs=0.26, warmup_from=0.5))
    assert values[2] < 1.0 == values[3]


def test_asking_twice_and_in_any_order_gives_the_same() -> None:
    lr_factor = build_lr_factor(cosine(), steps_per_epoch=STEPS_PER_EPOCH, total_steps=TOTAL)
    forwards = [lr_factor(step) for step in range(TOTAL)]
    assert [lr_factor(step) for step in reversed(range(TOTAL))] == forwards[::-1]


def test_the_image_size_is_the_configured_one_in_every_epoch() -> None:
    assert {image_size_at(epoch, image_size=176) for epoch in range(90)} == {176}
