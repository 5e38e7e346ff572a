"""A forecast's arithmetic: parts that add up, what lies between measured sizes, and how far all may be off."""

import statistics

import pytest

from src.forecast import Amounts, Part, a_step, bound_by, forecast, saves_of, spread
from src.timing import Pace, in_time, passes_of, windows_of
from src.trial import Trial


def pace(size: int, *windows: float, waiting: float = 0.0, first: float = 0.0) -> Pace:
    return Pace(size, windows, 10, waiting, first)


def trial(*paces: Pace) -> Trial:
    return Trial(paces, evaluation=(0.001, 0.001, 0.001), evaluated_images=100, loader_rate=1000.0, save_seconds=0.5, disk_bytes=0)


AMOUNTS = Amounts(steps_at={64: 1000}, epochs=10, evaluations=5, evaluated_images=2000, recalibration_steps=0.0, saves=12)


def test_the_parts_add_up() -> None:
    found = forecast(AMOUNTS, trial(pace(64, 0.1, 0.1, 0.1, first=2.1)), flops={64: 1.0}, started_seconds=5.0)
    assert found.start.expected == pytest.approx(5 + 2, abs=1e-9), "what the first step took longer belongs to the start"
    assert found.training == pytest.approx((100, 97, 103))
    assert found.evaluation == pytest.approx((10, 9.7, 10.3)), "5 x 2,000 images of a millisecond"
    assert found.saving == pytest.approx((6, 0, 12))
    assert found.total.expected == pytest.approx(7 + 100 + 10 + 6)
    assert found.total.least == pytest.approx(0.7 * 7 + 97 + 9.7)
    assert found.epoch.expected == pytest.approx((100 + 10 + 6) / 10)


def test_an_averages_statistics_cost_a_step_for_every_batch() -> None:
    found = forecast(AMOUNTS._replace(recalibration_steps=4), trial(pace(64, 0.1, 0.1)), flops={64: 1.0}, started_seconds=0.0)
    assert found.evaluation.expected == pytest.approx(10 + 5 * 4 * 0.1)


def test_a_size_between_two_is_placed_by_its_flops() -> None:
    """Loading costs 0.1 s whatever the size, and the model grows with it: the line finds both."""
    flops = {32: 1.0, 48: 2.25, 64: 4.0}
    paces = [pace(size, *[0.1 + 0.02 * flops[size]] * 3) for size in (32, 64)]
    assert a_step(paces, 48, flops).expected == pytest.approx(0.1 + 0.02 * 2.25)
    amounts = AMOUNTS._replace(steps_at={32: 100, 48: 100, 64: 800})
    found = forecast(amounts, trial(*paces), flops=flops, started_seconds=0.0)
    assert found.training.expected == pytest.approx(1000 * 0.1 + 0.02 * (100 * 1 + 100 * 2.25 + 800 * 4))


def test_windows_that_differ_more_leave_more_room() -> None:
    calm, rough = spread([0.99, 1.0, 1.01, 1.0]), spread([0.8, 1.2, 0.9, 1.1])
    assert calm == pytest.approx((1.0, 0.97, 1.03)), "never less than 3 %"
    off = 3.182 * statistics.stdev([0.8, 1.2, 0.9, 1.1]) * (2 / 4) ** 0.5
    assert rough == pytest.approx((1.0, 0.97 * 0.8, 1 + off)), "never faster than the fastest"
    assert spread([2.0]) == pytest.approx((2.0, 1.4, 2.6)), "once is not often"


def test_a_part_that_is_off_pulls_the_whole_with_it() -> None:
    assert Part(1, 0.5, 2) + Part(10, 9, 11) == (11, 9.5, 13)
    assert Part(1, 0.5, 2) * 3 == (3, 1.5, 6)


@pytest.mark.parametrize(("waiting", "bound"), [(0.0, "compute"), (0.19, "compute"), (0.2, "data"), (0.9, "data")])
def test_what_is_waited_for_limits(waiting: float, bound: str) -> None:
    assert bound_by(trial(pace(32, 1.0, waiting=0.5), pace(64, 1.0, waiting=waiting))) == bound


def test_saves_are_counted_as_the_loop_makes_them() -> None:
    """Every 4 steps of 10 an epoch; before and after the evaluations at 20 and 30, of which step 20 is due anyway."""
    saves = saves_of(total_steps=30, steps_per_epoch=10, evaluated_epochs=[2, 3], save_every_steps=4)
    assert saves == len([4, 8, 12, 16, 20, 24, 28]) + len(["20 after", "30 before", "30 after"])


@pytest.mark.parametrize(
    ("steps", "unit", "windows"),
    [(1000, 1, (10, 100)), (25, 1, (10, 2)), (7, 1, (7, 1)), (1, 1, (1, 1)), (0, 1, (0, 0)), (100, 3, (10, 9)), (5, 4, (5, 1))],
)
def test_steps_are_cut_into_windows(steps: int, unit: int, windows: tuple[int, int]) -> None:
    assert windows_of(steps, unit) == windows
    assert windows[0] * windows[1] <= steps


@pytest.mark.parametrize(("seconds", "a_batch", "expected"), [(3.0, 0.01, (100, 3)), (3.0, 0.9, (1, 3)), (3.0, 60.0, (1, 1))])
def test_slow_evaluation_is_seen_once(seconds: float, a_batch: float, expected: tuple[int, int]) -> None:
    assert passes_of(seconds, a_batch) == expected


def test_no_more_windows_than_there_is_time_for_but_two() -> None:
    assert in_time([lambda: 1] * 5, until=float("-inf")) == [1, 1]
    assert in_time([lambda: 1] * 5, until=float("inf")) == [1] * 5
    assert in_time([lambda: 1], until=float("-inf")) == [1]
