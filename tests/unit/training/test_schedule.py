"""The rate is a pure function of the step: its ends, its peak, its floor, and a slow twin."""

import itertools
import math

import pytest
from torch import nn, optim

from src.config import Config, load
from src.config.schedule import Cosine, ScheduleConfig
from src.training.schedule import build_lr_at, build_lr_factor, image_size_at

STEPS_PER_EPOCH, TOTAL = 10, 200
EPOCHS = TOTAL // STEPS_PER_EPOCH
KINDS = ("constant", "cosine", "one_cycle", "triangular", "step", "polynomial", "exponential")


def configured(*overrides: str) -> Config:
    return load(["data=synthetic", f"epochs={EPOCHS}", *overrides])


def schedule(kind: str, **keys: object) -> ScheduleConfig:
    return configured(f"schedule={kind}", *(f"schedule.{key}={value}" for key, value in keys.items())).schedule


def cosine(*, warmup_epochs: float = 2.0, warmup_from: float = 0.1, floor: float = 0.05) -> ScheduleConfig:
    return Cosine(
        name="cosine",
        by="step",
        warmup_epochs=warmup_epochs,
        warmup_from=warmup_from,
        hold_epochs=0,
        floor=floor,
        counts_warmup=False,
    )


def factors(config: ScheduleConfig) -> list[float]:
    lr_factor = build_lr_factor(config, steps_per_epoch=STEPS_PER_EPOCH, total_steps=TOTAL)
    return [lr_factor(step) for step in range(TOTAL + 1)]


def rates(config: Config) -> list[float]:
    lr_at = build_lr_at(config, steps_per_epoch=STEPS_PER_EPOCH, total_steps=TOTAL)
    return [lr_at(step) for step in range(TOTAL)]


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
    values = factors(schedule("constant", warmup_epochs=1.5, warmup_from=0.2))
    assert values[0] == pytest.approx(0.2)
    assert values[14] == pytest.approx(0.2 + 0.8 * 14 / 15)
    assert set(values[15:]) == {1.0}


def test_a_part_of_an_epoch_of_warm_up_is_rounded_to_steps() -> None:
    values = factors(cosine(warmup_epochs=0.26, warmup_from=0.5))
    assert values[2] < 1.0 == values[3]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", ["step", "epoch"])
def test_asking_twice_and_in_any_order_gives_the_same(kind: str, by: str) -> None:
    lr_factor = build_lr_factor(schedule(kind, by=by, warmup_epochs=3), steps_per_epoch=STEPS_PER_EPOCH, total_steps=TOTAL)
    forwards = [lr_factor(step) for step in range(TOTAL)]
    assert [lr_factor(step) for step in reversed(range(TOTAL))] == forwards[::-1]


@pytest.mark.parametrize("kind", KINDS)
def test_every_schedule_rises_to_the_peak_and_never_again(kind: str) -> None:
    more = {"every_epochs": 5} if kind == "step" else {}
    values = factors(schedule(kind, warmup_epochs=3, warmup_from=0.1, **more))
    peak = 29 if kind == "one_cycle" else 30  # torch's one-cycle is at its peak in the warm-up's last step
    assert values[0] == 0.1
    assert values[peak] == 1.0 == max(values)
    assert all(before < after for before, after in itertools.pairwise(values[: peak + 1]))
    assert all(before >= after for before, after in itertools.pairwise(values[peak:]))
    assert (values[TOTAL] < 0.7) == (kind != "constant")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "constant"])
def test_no_schedule_falls_below_its_floor(kind: str) -> None:
    strong = {"step": {"every_epochs": 3}, "exponential": {"gamma": 0.5}}
    values = factors(schedule(kind, warmup_epochs=3, warmup_from=0.1, floor=0.125, **strong.get(kind, {})))
    assert min(values[30:]) == pytest.approx(0.125, rel=1e-12)
    assert values[TOTAL] == pytest.approx(0.125, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_by_epoch_holds_the_value_of_an_epochs_first_step(kind: str) -> None:
    keys: dict[str, object] = {"warmup_epochs": 2.5, "warmup_from": 0.1}
    by_step, by_epoch = factors(schedule(kind, by="step", **keys)), factors(schedule(kind, by="epoch", **keys))
    for epoch in range(EPOCHS):
        steps = slice(epoch * STEPS_PER_EPOCH, (epoch + 1) * STEPS_PER_EPOCH)
        assert by_epoch[steps] == [by_step[epoch * STEPS_PER_EPOCH]] * STEPS_PER_EPOCH


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warmup_epochs", [0, 0.1, 20])
def test_no_warm_up_one_step_of_it_and_nothing_else(kind: str, warmup_epochs: float) -> None:
    values = factors(schedule(kind, warmup_epochs=warmup_epochs, warmup_from=0.25))
    assert all(0 <= value <= 1 for value in values)
    match warmup_epochs:
        case 0:
            assert values[0] == pytest.approx(1, abs=1e-3)  # one-cycle: torch's first phase ends a step before the run
        case 20:
            assert values[0] == 0.25
            assert values[:TOTAL] == sorted(values[:TOTAL])
        case _:
            assert values[1] == pytest.approx(1, abs=1e-2)


def test_a_run_of_a_single_step() -> None:
    for kind in KINDS:
        lr_factor = build_lr_factor(schedule(kind, warmup_epochs=0), steps_per_epoch=1, total_steps=1)
        assert 0 < lr_factor(0) <= 1 or kind == "one_cycle"
        assert 0 <= lr_factor(1) <= 1


def test_the_peak_is_held_before_the_cosine() -> None:
    values = factors(schedule("cosine", warmup_epochs=2, hold_epochs=3, floor=0.1))
    assert set(values[20:51]) == {1.0}
    assert values[51] < 1
    assert values[125] == pytest.approx(0.55)
    assert values[TOTAL] == pytest.approx(0.1)


def test_the_cosine_that_counts_the_warm_up_comes_out_of_it_below_the_peak() -> None:
    values = factors(schedule("cosine", warmup_epochs=4, counts_warmup=True, floor=0.0))
    assert values[39] == pytest.approx(0.01 + 0.99 * 39 / 40)
    assert values[40] == pytest.approx((1 + math.cos(math.pi * 0.2)) / 2)
    assert values[100] == pytest.approx(0.5)


@pytest.mark.parametrize(("rule", "factor"), [("none", 1.0), ("linear", 4.0), ("sqrt", 2.0)])
def test_the_rate_is_for_the_batch_that_is_trained_on(rule: str, factor: float) -> None:
    """Goyal et al. 2017: 0.1 for 256 images is 0.4 for 1,024."""
    config = configured(
        "optim.peak_lr=0.1",
        f"optim.lr_scaling={rule}",
        "optim.reference_batch_size=256",
        "batch_size=1024",
        "data.num_train=10240",
        "schedule=constant",
        "schedule.warmup_epochs=2",
    )
    values = rates(config)
    assert values[20] == pytest.approx(0.1 * factor, rel=1e-15)
    assert values[0] == pytest.approx(0.001 * factor, rel=1e-15)


def swa(*overrides: str) -> list[float]:
    return rates(configured("average=swa", "average.swa_start_epoch=10", "average.swa_anneal_epochs=4", *overrides))


def test_swa_leaves_the_schedule_alone_without_a_rate_of_its_own() -> None:
    assert swa("average.swa_lr=null") == rates(configured())


def test_swas_rate_is_reached_by_half_a_cosine_and_kept() -> None:
    with_swa, without = swa("average.swa_lr=0.03"), rates(configured())
    assert with_swa[:101] == without[:101]
    assert with_swa[120] == pytest.approx((without[100] + 0.03) / 2)
    assert all(before > after for before, after in itertools.pairwise(with_swa[100:141]))
    assert set(with_swa[140:]) == {0.03}


def test_swas_rate_may_lie_above_the_schedules() -> None:
    rising = swa("average.swa_lr=0.5")
    assert all(before < after for before, after in itertools.pairwise(rising[100:141]))
    assert rising[-1] == 0.5


def test_swa_that_starts_after_the_run_changes_nothing() -> None:
    assert swa("average.swa_lr=0.5", "average.swa_start_epoch=50") == rates(configured())


def test_swas_rate_is_absolute_whatever_lr_scaling_says() -> None:
    scaled = swa("average.swa_lr=0.5", "optim.lr_scaling=linear", "optim.reference_batch_size=64")
    assert scaled[-1] == 0.5


def sizes(*overrides: str, epochs: int = 40) -> list[int]:
    data = configured("data.resize_size=512", *overrides).data
    return [image_size_at(epoch, data) for epoch in range(epochs)]


def ramp(first: int, last: int, begin: int, end: int, multiple: int = 32) -> list[int]:
    return sizes(
        f"data.ramp_from_size={first}",
        f"data.image_size={last}",
        f"data.ramp_from_epoch={begin}",
        f"data.ramp_to_epoch={end}",
        f"data.ramp_multiple={multiple}",
    )


def test_without_a_ramp_the_image_size_is_the_configured_one_in_every_epoch() -> None:
    assert set(sizes("data.image_size=176")) == {176}


def test_a_ramp_grows_from_its_first_epoch_to_its_last() -> None:
    grown = ramp(128, 256, 4, 12)
    assert grown[:5] == [128] * 5
    assert grown[5:12] == [128, 160, 192, 192, 192, 224, 256]  # 144, 160, 176 (5.5 multiples: to 6), 192, 208 (6.5: to 6), 224, 240
    assert set(grown[12:]) == {256}


def test_a_ramp_of_one_epoch_is_a_jump() -> None:
    assert ramp(128, 256, 6, 7) == [128] * 7 + [256] * 33
    assert ramp(128, 256, 6, 6) == [128] * 7 + [256] * 33


def test_sizes_that_are_no_multiples_are_kept_at_the_ends_and_never_left() -> None:
    grown = ramp(100, 120, 0, 10)
    assert (grown[0], grown[10]) == (100, 120)
    assert set(grown[1:10]) == {100, 120}, "96 and 128 are the multiples of 32"
    assert min(ramp(8, 20, 0, 10)) == 8, "not 0"


def test_a_ramp_by_single_pixels() -> None:
    assert ramp(100, 110, 0, 10, 1)[:12] == [100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 110]
