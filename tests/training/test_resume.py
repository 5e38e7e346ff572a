"""Stopped anywhere and resumed, a run ends as if nothing had been; saving and evaluating leave no trace in it."""

from typing import Any

import pytest

from src.training.loop import fit
from src.training.resume import restore
from src.training.stopping import Preempted
from tests.training.conftest import copy_of, differing

OPTIMIZERS = ("sgd", "sam", "sgdw", "adam", "adamw", "rmsprop", "lars", "lamb", "sf_sgd", "sf_adamw")


def stop_after(run: Any, step: int) -> None:
    """Ask the run to stop once it has done so many steps."""
    run.requests.pending = lambda: run.step >= step


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resumed_equals_undisturbed(make_run: Any, name: str) -> None:
    settings = (f"optim={name}", "epochs=3", "track.log_every_steps=4", "max_local_batch_size=16", "seed=1")
    whole = make_run(*settings)
    fit(whole)
    wanted = whole.states[-1]
    for step in (1, 7, 10, 19, 29):
        stopped = make_run(*settings)
        stop_after(stopped, step)
        with pytest.raises(Preempted):
            fit(stopped)
        assert stopped.step == step
        resumed = make_run(*settings)
        restore(resumed, copy_of(stopped.states[-1]))
        fit(resumed)
        assert differing(wanted, resumed.states[-1]) == []


def test_killed_before_the_evaluation_evaluates_again(make_run: Any) -> None:
    whole = make_run("epochs=2")
    fit(whole)
    for state in whole.states:  # saved before and after each evaluation
        resumed = make_run("epochs=2")
        restore(resumed, copy_of(state))
        fit(resumed)
        assert differing(whole.states[-1], resumed.states[-1] if resumed.states else copy_of(state)) == []


def test_another_seed_ends_elsewhere(make_run: Any) -> None:
    ends = []
    for seed in (0, 1):
        run = make_run("epochs=1", f"seed={seed}")
        fit(run)
        ends.append(run.states[-1]["model"])
    assert differing(*ends)


def test_evaluating_more_often_does_not_change_training(make_run: Any) -> None:
    ends = []
    for every in (1, 3):
        run = make_run("optim=sf_adamw", "epochs=3", f"eval_every_epochs={every}", f"save_every_steps={every}")
        fit(run)
        ends.append({key: run.states[-1][key] for key in ("model", "optimizer", "evaluation")})
    assert differing(*ends) == []


def test_a_finished_run_trains_no_more(make_run: Any) -> None:
    run = make_run("epochs=1")
    result = fit(run)
    again = make_run("epochs=1")
    restore(again, copy_of(run.states[-1]))
    assert fit(again) == result
    assert again.recorder.seen == [] and again.states == []
