"""The ledger: a step's hash is of what was trained on, however the batch is cut and dealt out; its loss is the step's mean."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from src.batch import BatchPlan, StepRow
from src.data.plan import CropLaw, EpochPlan
from src.training.arithmetic import Arithmetic
from src.training.ledger import Ledger, hash_images

BATCH, STEPS = 24, 5
SIZES = np.random.default_rng(0).integers(20, 60, (200, 2)).astype(np.int32)
LABELS = np.arange(200) % 7
LAW = CropLaw((0.25, 1.0), (0.75, 4 / 3), 0.5)
Change = Callable[[BatchPlan], BatchPlan]


def ledger_of(local: int, *, ranks: int = 1, change: Change = lambda plan: plan, write_every: int = STEPS) -> list[list[StepRow]]:
    """Return each rank's rows, not added over ranks, of some steps whose losses are the slots' numbers."""
    plan = EpochPlan(SIZES, seed=3, epoch=1, batch_size=BATCH, local_batch_size=local, law=LAW)
    of_ranks = []
    for rank in range(ranks):
        rows: list[StepRow] = []
        arithmetic = Arithmetic(BATCH, local, BATCH // local // ranks, ranks, 8, 8)
        ledger = Ledger(arithmetic, LABELS, torch.device("cpu"), keep=rows.extend)
        for step in range(STEPS):
            for micro_batch in range(arithmetic.accumulation):
                slot = arithmetic.slot(micro_batch, rank)
                ledger.note(8 + step, slot, torch.tensor(float(slot)), change(plan.batch(step, slot)))
            if (step + 1) % write_every == 0:
                ledger.write()
        ledger.write()
        of_ranks.append(rows)
    return of_ranks


def plans(rows: list[StepRow]) -> list[int]:
    return [row.plan for row in rows]


def test_a_step_has_one_hash_however_it_is_cut() -> None:
    (whole,) = ledger_of(BATCH)
    for local in (1, 4, 12):
        (cut,) = ledger_of(local)
        assert plans(cut) == plans(whole)
    assert len(set(plans(whole))) == STEPS
    assert [row.step for row in whole] == list(range(9, 9 + STEPS))


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_ranks_shares_add_up_to_it(ranks: int) -> None:
    (whole,) = ledger_of(4)
    shares = ledger_of(4, ranks=ranks)
    for place, row in enumerate(whole):
        assert sum(share[place].plan for share in shares) % 2**64 == row.plan
        assert sum(share[place].loss for share in shares) == pytest.approx(row.loss)


def test_the_loss_is_the_mean_over_the_steps_micro_batches() -> None:
    (rows,) = ledger_of(4)
    assert [row.loss for row in rows] == [2.5] * STEPS


def test_when_it_is_written_changes_no_row() -> None:
    assert ledger_of(4, write_every=1) == ledger_of(4, write_every=2) == ledger_of(4)


def test_many_images_are_hashed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.training.ledger._HASHED_AT_ONCE", 7)
    parts = ledger_of(4)
    monkeypatch.undo()
    assert parts == ledger_of(4)


def swapped(column: str) -> Change:
    """Return what swaps two images' entries in one column of a plan."""

    def change(plan: BatchPlan) -> BatchPlan:
        values: Any = getattr(plan, column).copy()
        values[[0, 1]] = values[[1, 0]]
        return plan._replace(**{column: values})

    return change


def flipped(plan: BatchPlan) -> BatchPlan:
    return plan._replace(flips=np.concatenate([~plan.flips[:1], plan.flips[1:]]))


def shifted(corner: int) -> Change:
    def change(plan: BatchPlan) -> BatchPlan:
        crops = plan.crops.copy()
        crops[-1, corner] += 1
        return plan._replace(crops=crops)

    return change


@pytest.mark.parametrize("change", [swapped("ids"), swapped("keys"), swapped("crops"), flipped, *map(shifted, range(4))])
def test_whatever_changes_of_one_image_changes_the_hash(change: Change) -> None:
    (changed,), (whole,) = ledger_of(BATCH, change=change), ledger_of(BATCH)
    assert not set(plans(changed)) & set(plans(whole))


def test_another_label_or_place_changes_the_hash() -> None:
    plan = EpochPlan(SIZES, seed=3, epoch=1, batch_size=BATCH, local_batch_size=BATCH, law=LAW).batch(0, 0)
    places, labels = np.arange(BATCH), LABELS.copy()
    labels[plan.ids[5]] += 1
    before = hash_images(plan, places, LABELS)
    assert np.flatnonzero(hash_images(plan, places, labels) != before).tolist() == [5]
    assert np.all(hash_images(plan, places + 1, LABELS) != before)


def test_the_hash_is_what_it_always_was() -> None:
    """A change of the hash would make every ledger that exists look forged."""
    plan = BatchPlan(np.array([3]), np.array([2**63 + 5], np.uint64), np.array([[1, 2, 30, 40]], np.int32), np.array([True]))
    assert hash_images(plan, np.array([7]), np.arange(10)).tolist() == [8553896859395751977]
