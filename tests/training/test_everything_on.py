"""All features of the recipes in one run: it resumes bit for bit, evaluating leaves no trace, the metrics tell what was done."""

from typing import Any

import pytest
import torch

from src.batch import Augmented, Batch
from src.training.loop import fit, train_step
from src.training.resume import restore
from src.training.stopping import Preempted
from tests.everything import EVERYTHING
from tests.training.conftest import copy_of, differing
from tests.training.test_resume import stop_after

SETTINGS = (*EVERYTHING, "track.log_every_steps=4", "seed=1")


class Rows:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def log(self, record: Any) -> None:
        self.rows.append({"kind": record.kind, "step": record.step, "epoch": record.epoch, **record.values})

    def advance(self, step: int) -> None: ...
    def close(self) -> None: ...


def test_resumed_equals_undisturbed(make_run: Any) -> None:
    whole = make_run(*SETTINGS, base=())
    fit(whole)
    assert whole.step == 40
    wanted = whole.states[-1]
    assert wanted["evaluation"] is not None
    for step in (3, 10, 27):  # in the EMA, at its evaluation, in the epochs of the mean
        stopped = make_run(*SETTINGS, base=())
        stop_after(stopped, step)
        with pytest.raises(Preempted):
            fit(stopped)
        resumed = make_run(*SETTINGS, base=())
        restore(resumed, copy_of(stopped.states[-1]))
        fit(resumed)
        assert differing(wanted, resumed.states[-1]) == []


def test_evaluating_more_often_does_not_change_training(make_run: Any) -> None:
    ends = []
    for every in (1, 4):
        run = make_run(*SETTINGS, f"eval_every_epochs={every}", base=())
        fit(run)
        ends.append({key: run.states[-1][key] for key in ("model", "optimizer", "evaluation", "average")})
    assert differing(*ends) == []


def test_the_metrics_tell_what_was_done(make_run: Any) -> None:
    run = make_run(*SETTINGS, base=())
    rows = Rows()
    run.trackers.append(rows)
    fit(run)
    logged, epochs = ([row for row in rows.rows if row["kind"] == kind] for kind in ("train", "epoch"))
    assert [row["data/image_size"] for row in epochs] == [16, 16, 24, 24]  # 16, 20 to the even multiple, 24, 24
    for row in logged + epochs:
        assert 0.5 < row["augment/mix_lambda"] < 1.0
        assert 0.0 < row["augment/magnitude"] <= 1.0
        assert 0.2 < row["augment/erased"] < 0.8
    for row in epochs:
        assert row["val/acc1"] * 50 / 100 == pytest.approx(round(row["val/acc1"] * 50 / 100))
        assert row["val/trained_acc1"] * 50 / 100 == pytest.approx(round(row["val/trained_acc1"] * 50 / 100))
        assert row["val/trained_loss"] != row["val/loss"]
    weights = [entry["protocol"]["weights"] for entry in run.history.epochs]
    assert weights == ["ema", "ema", "swa", "swa"]
    assert {entry["trained_protocol"]["weights"] for entry in run.history.epochs} == {"trained"}
    assert {entry["protocol"]["test_time_augmentation"] for entry in run.history.epochs} == {"flip"}
    assert logged[-1]["train/lr"] == pytest.approx(0.01)


def test_both_passes_of_a_sharpness_aware_step_see_the_same_images(make_run: Any) -> None:
    run = make_run(*SETTINGS, base=())
    seen: list[Augmented] = []
    augment = run.augment

    def recorded(batch: Batch, *, step: int, slot: int) -> Augmented:
        seen.append(augment(batch, step=step, slot=slot))
        return seen[-1]

    run.augment = recorded
    batches = run.epoch_batches()
    train_step(run, batches)  # sharpness-aware: two micro-batches, twice
    assert len(seen) == 4
    for first, second in ((seen[0], seen[2]), (seen[1], seen[3])):
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.targets, second.targets)
    assert not torch.equal(seen[0].images, seen[1].images)
    run.step += 1
    train_step(run, batches)  # plain
    assert len(seen) == 6
    assert run.meter.window().images == 64  # a second pass is not counted
