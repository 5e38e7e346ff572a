"""Seconds of training alone, and of these the seconds blocked in next(); on a clock that the test moves."""

from collections.abc import Iterator

import pytest

from src.training import clock as clock_module
from src.training.clock import Clock


class Hand:
    """A monotonic clock moved by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    hand = Hand()
    monkeypatch.setattr(clock_module.time, "monotonic", hand)
    return hand


def slowly(hand: Hand, seconds: float, count: int) -> Iterator[int]:
    for number in range(count):
        hand.now += seconds
        yield number


def test_it_stands_still_outside_training(hand: Hand) -> None:
    clock = Clock()
    hand.now += 50
    assert clock.elapsed == 0
    with clock.running():
        hand.now += 3
        assert clock.elapsed == 3
    hand.now += 70  # an evaluation
    assert clock.elapsed == 3
    with clock.running():
        hand.now += 2
    assert clock.elapsed == 5
    assert clock.epoch() == (5, 0)


def test_an_exception_stops_it_too(hand: Hand) -> None:
    clock = Clock()
    with pytest.raises(KeyError), clock.running():
        hand.now += 3
        raise KeyError
    hand.now += 9
    assert clock.elapsed == 3


def test_the_wait_is_the_time_in_next_alone(hand: Hand) -> None:
    clock = Clock()
    with clock.running():
        for _ in clock.waiting(slowly(hand, 0.25, 4)):
            hand.now += 1.0  # the work
        assert clock.window() == (5.0, 1.0)
        assert clock.window() == (0.0, 0.0)


def test_windows_and_epochs_have_their_own_marks(hand: Hand) -> None:
    clock = Clock()
    with clock.running():
        for number in clock.waiting(slowly(hand, 0.5, 4)):
            hand.now += 1.0
            if number % 2:
                assert clock.window() == (3.0, 1.0)
    assert clock.epoch() == (6.0, 2.0)
    assert clock.epoch() == (0.0, 0.0)


def test_items_pass_through_in_order(hand: Hand) -> None:
    assert list(Clock().waiting(slowly(hand, 0, 5))) == [0, 1, 2, 3, 4]


def test_a_resumed_run_counts_on_and_its_first_window_is_its_own(hand: Hand) -> None:
    clock = Clock()
    clock.resume_from(1000.0)
    with clock.running():
        hand.now += 2
        assert clock.elapsed == 1002
        assert clock.window() == (2, 0)
    assert clock.epoch() == (2, 0)
