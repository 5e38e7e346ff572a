"""Windows begin at random places after kept checkpoints, and what can be replayed is told truly."""

from collections import Counter

from src.auditing.windows import choose, covered, replayable, stretches
from tests.unit.auditing.conftest import MakeRecord


def test_steps_after_the_first_kept_checkpoint_can_be_replayed(make_record: MakeRecord) -> None:
    record = make_record()
    assert [(state.step, last) for state, last in stretches(record)] == [(20, 30)]
    assert replayable(record) == 10
    assert replayable(record._replace(states=record.states[1:])) == 0
    assert choose(record._replace(states=record.states[1:]), windows=3, steps=5, reach=None, seed=0) == []


def test_a_state_before_its_evaluation_lets_that_be_replayed(make_record: MakeRecord) -> None:
    record = make_record()
    last = record.states[-1]
    before = last._replace(names=("previous.ckpt",), state={**last.state, "history": last.state["history"][:-1]})
    (window,) = choose(record._replace(states=[before, last]), windows=3, steps=5, reach=None, seed=0)
    assert (window.start.names, window.last, str(window)) == (
        ("previous.ckpt",),
        30,
        "the evaluation at step 30 from previous.ckpt",
    )


def test_every_place_has_the_same_chance(make_record: MakeRecord) -> None:
    record = make_record()
    ends = Counter(choose(record, windows=1, steps=1, reach=None, seed=seed)[0].last for seed in range(2000))
    assert sorted(ends) == list(range(21, 31))
    assert min(ends.values()) > 140 and max(ends.values()) < 270


def test_reach_bounds_what_is_trained_again(make_record: MakeRecord) -> None:
    record = make_record()
    ends = {choose(record, windows=1, steps=2, reach=3, seed=seed)[0].last for seed in range(200)}
    assert ends == {22, 23, 24, 25}


def test_windows_of_one_checkpoint_are_one_replay(make_record: MakeRecord) -> None:
    windows = choose(make_record(), windows=1000, steps=1, reach=None, seed=0)
    assert [(window.start.step, window.last) for window in windows] == [(20, 30)]
    assert covered(windows) == 10
