"""Averages in whole runs: torch's own, without effect on training; skipped steps move none; accuracies say what they are of."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from loguru import logger
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from src.training.averaging import Average
from src.training.loop import fit, train_step
from src.training.weight_means import Ema, Swa
from tests.training.conftest import differing

MakeRun = Callable[..., Any]
EMA = ("average=ema", "average.decay=0.8", "average.recalibrate_images=64")
SWA = ("average=swa", "average.swa_start_epoch=1", "average.recalibrate_images=64")
BOTH = ("average=ema_swa", "average.decay=0.8", "average.swa_start_epoch=2", "average.recalibrate_images=64")


def after_each(run: Any, look: Callable[[int], None]) -> None:
    """Call look(step) after each update of the average, with the run's model as it then is."""
    update = run.average.update

    def updated(model: Any, step: int, moved: Tensor | None) -> None:
        update(model, step, moved)
        assert step == run.step + 1
        look(step)

    run.average.update = updated


def mean_of(average: Average) -> dict[str, Tensor]:
    (mean,) = average.state().values()
    return dict(mean)


def test_an_ema_is_torchs_over_a_whole_run_with_evaluations_between(make_run: MakeRun) -> None:
    run = make_run(*EMA, "average.every_steps=2", "average.start_epoch=0.35", "epochs=5")
    theirs, compared = AveragedModel(run.model, multi_avg_fn=get_ema_multi_avg_fn(0.8)), []

    def look(step: int) -> None:
        if step % 2 == 0 and step > 4:  # 0.35 of an epoch of ten steps, rounded
            theirs.update_parameters(run.model)
            compared.append(differing(mean_of(run.average), dict(theirs.module.named_parameters())))

    after_each(run, look)
    fit(run)
    assert compared == [[]] * 23


def test_swa_is_torchs_mean_of_the_epochs_ends(make_run: MakeRun) -> None:
    run = make_run(*SWA, "epochs=4")
    theirs = AveragedModel(run.model, multi_avg_fn=get_swa_multi_avg_fn())

    def look(step: int) -> None:
        if step in {20, 30, 40}:
            theirs.update_parameters(run.model)

    after_each(run, look)
    fit(run)
    assert differing(mean_of(run.average), dict(theirs.module.named_parameters())) == []
    assert [entry["protocol"]["weights"] for entry in run.history.epochs] == ["trained", "swa", "swa", "swa"]


@pytest.mark.parametrize("average", [EMA, SWA, BOTH], ids=lambda settings: settings[0])
def test_an_average_does_not_change_training(make_run: MakeRun, average: tuple[str, ...]) -> None:
    averaged, plain = make_run(*average, "epochs=3"), make_run("average=none", "epochs=3")
    for run in (averaged, plain):
        fit(run)
    for part in ("model", "optimizer", "meters", "buffers"):
        assert differing(averaged.states[-1][part], plain.states[-1][part]) == []
    ours, theirs = averaged.history.epochs[-1], plain.history.epochs[-1]
    assert ours["val/trained_loss"] == theirs["val/loss"]
    assert ours["val/loss"] != theirs["val/loss"]
    assert "val/trained_loss" not in theirs
    assert differing(averaged.states[-1]["evaluation"]["fc.weight"], mean_of(averaged.average)["fc.weight"]) == []


@pytest.mark.parametrize("average", [(*EMA,), (*SWA, "average.swa_start_epoch=0", "average.swa_every_steps=1")], ids=["ema", "swa"])
def test_a_step_that_the_scaler_skips_moves_no_average(make_run: MakeRun, average: tuple[str, ...]) -> None:
    run, moved = make_run(*average, "precision=fp16", "optim.peak_lr=0.01"), []
    criterion, batches = run.criterion, run.epoch_batches()
    overflows = {3, 4, 7}
    run.criterion = lambda logits, targets: criterion(logits, targets) * (float("inf") if run.step in overflows else 1.0)
    for _ in range(10):
        before = {name: tensor.clone() for part in run.average.state().values() for name, tensor in part.items()}
        train_step(run, batches)
        moved.append(differing(before, mean_of(run.average)) != [])
        run.step += 1
    assert run.skipped.counts()[0] == 3
    assert moved == [step not in overflows for step in range(10)]


def test_without_recalibration_the_trained_statistics_are_evaluated_at(make_run: MakeRun) -> None:
    evaluated = {}
    for images in (0, 64):
        run = make_run(*EMA, f"average.recalibrate_images={images}", "epochs=1")
        fit(run)
        evaluated[images] = run.states[-1]["evaluation"]
        trained = run.states[-1]["model"]
        same = torch.equal(evaluated[images]["stem.1.running_mean"], trained["stem.1.running_mean"])
        assert same == (images == 0)
    assert torch.equal(evaluated[0]["stem.0.weight"], evaluated[64]["stem.0.weight"])


def test_the_trained_weights_are_left_out_where_they_are_not_wanted(make_run: MakeRun) -> None:
    run = make_run(*EMA, "average.evaluate_trained=false", "epochs=1")
    result = fit(run)
    assert result.trained is None
    assert result.protocol["weights"] == "ema"
    assert "val/trained_loss" not in run.history.epochs[-1]


def told(make_run: MakeRun, *overrides: str) -> tuple[Average, list[str]]:
    """Build an average as a run has it, and collect what was warned of."""
    messages: list[str] = []
    sink = logger.add(lambda message: messages.append(str(message)), level="WARNING", format="{message}")
    try:
        return make_run(*overrides).average, messages
    finally:
        logger.remove(sink)


def test_the_configuration_arrives(make_run: MakeRun) -> None:
    average, messages = told(make_run, *EMA, "average.start_epoch=2.5", "average.every_steps=4")
    assert isinstance(average, Ema)
    assert average.first_step == 28
    average, _ = told(make_run, *SWA, "average.swa_start_epoch=3")
    assert isinstance(average, Swa)
    assert average.first_step == 40
    average, _ = told(make_run, *SWA, "average.swa_start_epoch=3", "average.swa_every_steps=7")
    assert isinstance(average, Swa)
    assert average.first_step == 35
    assert messages == []


def test_a_half_life_and_its_decay_are_the_same_average(make_run: MakeRun) -> None:
    ends = []
    for how in (("average.half_life_steps=10", "average.decay=null"), (f"average.decay={2 ** (-3 / 10)}",)):
        run = make_run("average=ema", "average.every_steps=3", "average.recalibrate_images=32", *how, "epochs=2")
        fit(run)
        ends.append(mean_of(run.average))
    assert differing(*ends) == []


def test_the_warm_up_of_the_decay_is_read(make_run: MakeRun) -> None:
    """With it, early updates keep little: after ten steps the average is nearer to the weights than without."""
    distance = {}
    for warmup in ("true", "false"):
        run = make_run("average=ema", "average.decay=0.999", f"average.decay_warmup={warmup}", "average.recalibrate_images=32")
        batches = run.epoch_batches()
        for _ in range(10):
            train_step(run, batches)
            run.step += 1
        distance[warmup] = float((mean_of(run.average)["fc.weight"] - run.model.fc.weight.detach()).norm())
    assert distance["true"] < distance["false"] / 2


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("average=swa", "epochs=10"), "average.swa_start_epoch=75: the average begins at step 760, but the run ends at step 100"),
        (("average=ema", "average.start_epoch=3", "epochs=3"), "average.start_epoch=3: the average begins at step 31, but"),
        (("average=ema", "average.every_steps=50", "epochs=3"), "the average begins at step 50, but the run ends at step 30"),
    ],
)
def test_an_average_that_never_begins_is_warned_of(make_run: MakeRun, overrides: tuple[str, ...], said: str) -> None:
    _, messages = told(make_run, *overrides)
    assert len(messages) == 1
    assert said in messages[0]
