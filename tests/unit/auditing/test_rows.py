"""What follows from the ledger, the configuration and the rows themselves is checked, row by row, and nothing honest is blamed."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from src.auditing.record import RunRecord
from src.auditing.rows import count_check, epochs_check, loss_check, schedule_check, steps_check, time_check
from src.auditing.states import best_check, history_check, sums_check
from src.auditing.verdict import Check
from src.training.arithmetic import Arithmetic
from src.training.schedule import build_lr_at
from tests.unit.auditing.conftest import NUM_VAL, MakeRecord


def checks_of(record: RunRecord, arithmetic: Arithmetic) -> dict[str, Check]:
    lr_at = build_lr_at(record.config, steps_per_epoch=arithmetic.steps_per_epoch, total_steps=arithmetic.total_steps)
    made = [
        steps_check(record, arithmetic),
        schedule_check(record, arithmetic, lr_at),
        loss_check(record, arithmetic),
        count_check(record, arithmetic),
        epochs_check(record, record.config, arithmetic, NUM_VAL),
        time_check(record, arithmetic),
        history_check(record),
        sums_check(record, arithmetic),
    ]
    return {check.name: check for check in made}


def differing(record: RunRecord, arithmetic: Arithmetic) -> set[str]:
    return {name for name, check in checks_of(record, arithmetic).items() if check.outcome == "differs"}


def test_what_agrees_is_not_blamed(make_record: MakeRecord, arithmetic: Arithmetic) -> None:
    assert differing(make_record(), arithmetic) == set()


def test_a_mean_may_be_off_by_its_rounding_and_no_more(make_record: MakeRecord, arithmetic: Arithmetic) -> None:
    record = make_record()
    row = record.metrics[0]
    row["train/loss"] = math.nextafter(row["train/loss"], 9)
    assert differing(record, arithmetic) == set()
    row["train/loss"] *= 1 + 1e-12
    assert differing(record, arithmetic) == {"losses against the ledger"}


ALTERED: dict[str, tuple[str, int, Callable[[Any], Any], str]] = {
    "a window's loss": ("train/loss", 4, lambda v: v - 1e-6, "losses against the ledger"),
    "an epoch's loss": ("train/loss", 3, lambda v: v - 1e-6, "losses against the ledger"),
    "a hit more": ("train/acc1", 0, lambda v: v + 100 / 128, "hits"),
    "a part of a hit": ("train/acc1", 0, lambda v: v + 0.001, "hits"),
    "an epoch's hits": ("train/acc5", 3, lambda v: v + 100 / 320, "hits"),
    "rate": ("train/lr", 5, lambda v: v * 1.0000001, "rate, epochs and image sizes"),
    "image size": ("data/image_size", 5, lambda v: v + 32, "rate, epochs and image sizes"),
    "epoch": ("epoch", 5, lambda v: v + 1, "rate, epochs and image sizes"),
    "throughput": ("time/images_per_second", 5, lambda v: v * 1.01, "times"),
    "a clock": ("time/elapsed_seconds", 5, lambda v: v - 3, "times"),
    "waiting": ("time/data_wait_fraction", 5, lambda v: 1.5, "times"),
    "a part of a validation hit": ("val/acc1", 3, lambda v: v + 0.5, "epochs"),
    "a validation hit": ("val/acc1", 3, lambda v: v + 2, "evaluations against checkpoints"),
    "a validation loss": ("val/loss", 7, lambda v: v - 1e-9, "evaluations against checkpoints"),
}


@pytest.mark.parametrize("what", ALTERED)
def test_an_altered_figure_is_named(make_record: MakeRecord, arithmetic: Arithmetic, what: str) -> None:
    key, place, alter, name = ALTERED[what]
    record = make_record()
    row = record.metrics[place]
    row[key] = alter(row[key])
    found = checks_of(record, arithmetic)[name]
    assert found.outcome == "differs"
    if what not in ("a hit more", "a clock"):  # which show at the epoch's end, and in the window before
        assert f"step {row['step']:,} ({row['kind']})" in found.detail


def test_a_missing_row_is_found(make_record: MakeRecord, arithmetic: Arithmetic) -> None:
    for place, names in ((1, {"losses against the ledger"}), (3, {"epochs", "evaluations against checkpoints"})):
        record = make_record()
        del record.metrics[place]
        assert names <= differing(record, arithmetic)


def test_every_epoch_is_evaluated_where_it_is_due_and_only_there(make_record: MakeRecord, arithmetic: Arithmetic) -> None:
    record = make_record()
    rare = record.config.model_copy(update={"eval_every_epochs": 2})
    found = epochs_check(record, rare, arithmetic, NUM_VAL)
    assert found.outcome == "differs" and "step 10 (epoch): evaluated, against eval_every_epochs=2" in found.detail
    for key in ("val/loss", "val/acc1", "val/acc5"):
        del record.metrics[3][key]
    assert epochs_check(record, rare, arithmetic, NUM_VAL).outcome == "agrees", "of the second epoch and of the last"
    found = epochs_check(record, record.config, arithmetic, NUM_VAL)
    assert "step 10 (epoch): not evaluated, against eval_every_epochs=1" in found.detail


def test_an_epochs_row_stands_at_its_end_and_only_the_last_may_be_missing_of_a_run_that_goes_on(
    make_record: MakeRecord, arithmetic: Arithmetic
) -> None:
    record = make_record()
    record.metrics[7]["step"] = 21
    assert "step 21 (epoch) is not at an epoch's end" in epochs_check(record, record.config, arithmetic, NUM_VAL).detail
    for missing, status, outcome in (
        (11, "running", "agrees"), (11, "finished", "differs"), (7, "running", "differs"),
    ):  # fmt: skip
        record = make_record()._replace(status={"status": status})
        del record.metrics[missing]
        assert epochs_check(record, record.config, arithmetic, NUM_VAL).outcome == outcome, (missing, status)


@pytest.mark.parametrize("key", ["val/acc1", "val/acc5", "val/trained_acc1", "val/trained_acc5"])
def test_every_accuracy_of_an_evaluation_is_a_whole_number_of_hits(
    make_record: MakeRecord, arithmetic: Arithmetic, key: str
) -> None:
    record = make_record()
    record.metrics[7][key] = 100 * 31 / NUM_VAL
    assert epochs_check(record, record.config, arithmetic, NUM_VAL).outcome == "agrees"
    record.metrics[7][key] = 100 * 31.5 / NUM_VAL
    assert f"step 20 (epoch): {key}" in epochs_check(record, record.config, arithmetic, NUM_VAL).detail


def test_a_missing_or_doubled_step_is_found(make_record: MakeRecord, arithmetic: Arithmetic) -> None:
    record = make_record()
    gap = record._replace(ledger=record.ledger[[step for step in range(30) if step != 12]])
    assert "step 14 follows 12" in checks_of(gap, arithmetic)["steps"].detail
    late = record._replace(ledger=record.ledger[5:])
    assert "the ledger begins at step 6" in checks_of(late, arithmetic)["steps"].detail
    short = record._replace(ledger=record.ledger[:-3])
    assert "metrics.jsonl goes to step 30, the ledger to 27" in checks_of(short, arithmetic)["steps"].detail


def test_a_checkpoints_sums_are_the_ledgers(make_record: MakeRecord, arithmetic: Arithmetic) -> None:
    record = make_record()
    state = record.states[0].state
    state["step"] = 26
    state["meters"][0][0, 0] = float(record.ledger["loss"][20:26].sum()) * 32
    state["meters"][0][0, 3] = 6 * 32
    assert sums_check(record, arithmetic).outcome == "agrees"
    state["meters"][0][0, 0] *= 1 + 1e-6
    assert "has a sum of losses" in sums_check(record, arithmetic).detail
    state["meters"][0][0, 3] = 5 * 32
    assert "counts 160 images of its epoch, not 192" in sums_check(record, arithmetic).detail


def test_a_best_checkpoint_that_is_not_the_best_is_found(make_record: MakeRecord) -> None:
    record = make_record()
    last = record.states[-1]
    names = [row["name"] for row in best_names(record)]
    good = [record.states[0]._replace(names=(names[1],)), last._replace(names=("last.ckpt", "best.ckpt", names[0]))]
    assert best_check(record._replace(states=good)).detail.startswith("4 names of 2 states")
    swapped = [record.states[0]._replace(names=(names[1], "best.ckpt")), last._replace(names=("last.ckpt", names[0]))]
    assert "best.ckpt is of step 20, and should be of 30" in best_check(record._replace(states=swapped)).detail


def best_names(record: RunRecord) -> list[dict[str, Any]]:
    from src.config.identity import model_name
    from src.training.history import History

    kept = History(record.states[-1].state["history"]).top(2, model_name(record.config))
    return [{"name": each.name} for each in kept]
