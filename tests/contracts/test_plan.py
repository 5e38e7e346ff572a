"""The plan's contract: who sees which sample when, for any number of ranks, any spread over them, and from any step on."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from src.batch import BatchPlan
from src.data.plan import CropLaw, EpochPlan, eval_plans
from src.training.arithmetic import Arithmetic

LAW = CropLaw((0.08, 1.0), (3 / 4, 4 / 3), 0.5)
WORLD_SIZES = [1, 2, 3, 7]
LOCAL = 4
SIZES = np.random.default_rng(0).integers(1, 600, (317, 2), dtype=np.int32)


def laid_out(world_size: int, accumulation: int, samples: int = len(SIZES)) -> Arithmetic:
    batch_size = LOCAL * accumulation * world_size
    steps = samples // batch_size
    return Arithmetic(batch_size, LOCAL, accumulation, world_size, steps, steps)


def planned(arithmetic: Arithmetic, *, seed: int = 5, epoch: int = 2, samples: int = len(SIZES)) -> EpochPlan:
    return EpochPlan(
        SIZES[:samples],
        seed=seed,
        epoch=epoch,
        batch_size=arithmetic.batch_size,
        local_batch_size=arithmetic.local_batch_size,
        law=LAW,
    )


def rank_epoch(arithmetic: Arithmetic, rank: int, *, samples: int = len(SIZES), first_step: int = 0) -> Iterator[BatchPlan]:
    """Yield what one rank trains on, from a plan of its own, as the loop asks for it."""
    plan = planned(arithmetic, samples=samples)
    for step in range(first_step, arithmetic.steps_per_epoch):
        for micro_batch in range(arithmetic.accumulation):
            yield plan.batch(step, arithmetic.slot(micro_batch, rank))


def equal(one: BatchPlan, two: BatchPlan) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_an_epoch_trains_on_a_sample_at_most_once(world_size, accumulation):
    arithmetic = laid_out(world_size, accumulation)
    seen = [plan.ids for rank in range(world_size) for plan in rank_epoch(arithmetic, rank)]
    ids = np.concatenate(seen)
    assert {len(batch) for batch in seen} == {LOCAL}
    assert len(set(ids.tolist())) == len(ids) == arithmetic.steps_per_epoch * arithmetic.batch_size
    assert len(SIZES) - len(ids) < arithmetic.batch_size, "more is dropped than one batch"
    assert set(ids.tolist()) <= set(range(len(SIZES)))


def test_what_an_epoch_drops_changes_with_the_epoch():
    arithmetic = laid_out(7, 2)
    dropped = [
        set(planned(arithmetic, epoch=epoch).order[arithmetic.steps_per_epoch * arithmetic.batch_size :]) for epoch in (0, 1)
    ]
    assert dropped[0]
    assert dropped[0] != dropped[1]


def test_slots_do_not_depend_on_their_spread_over_ranks_and_accumulation():
    spreads = []
    for world_size, accumulation in ((1, 4), (2, 2), (4, 1)):
        arithmetic = laid_out(world_size, accumulation)
        slots = {}
        for rank in range(world_size):
            for number, plan in enumerate(rank_epoch(arithmetic, rank)):
                step, micro_batch = divmod(number, accumulation)
                slots[step, micro_batch * world_size + rank] = plan
        spreads.append(slots)
    first = spreads[0]
    assert set(first) == {(step, slot) for step in range(len(SIZES) // 16) for slot in range(4)}
    for other in spreads[1:]:
        assert set(other) == set(first)
        assert all(equal(first[place], other[place]) for place in first)


def test_the_slots_of_a_step_are_its_batch_in_order():
    arithmetic = laid_out(2, 3)
    plan = planned(arithmetic)
    for step in range(arithmetic.steps_per_epoch):
        slots = np.concatenate([plan.batch(step, slot).ids for slot in range(6)])
        assert slots.tolist() == plan.order[step * 24 : (step + 1) * 24].tolist()


@pytest.mark.parametrize("first_step", [1, 5, 12])
def test_resuming_is_the_tail_of_the_whole(first_step):
    arithmetic = laid_out(3, 2)
    whole = list(rank_epoch(arithmetic, rank=1))
    tail = list(rank_epoch(arithmetic, rank=1, first_step=first_step))
    assert len(tail) == len(whole) - 2 * first_step
    assert all(equal(a, b) for a, b in zip(tail, whole[2 * first_step :], strict=True))


def test_a_batch_does_not_depend_on_what_was_asked_before():
    arithmetic = laid_out(1, 4)
    forwards, backwards = planned(arithmetic), planned(arithmetic)
    places = [(step, slot) for step in range(arithmetic.steps_per_epoch) for slot in range(4)]
    expected = {place: forwards.batch(*place) for place in places}
    assert all(equal(backwards.batch(*place), expected[place]) for place in reversed(places))


def test_a_samples_box_and_flip_do_not_depend_on_its_batch():
    shown = []
    for local in (1, 3, 50):
        plan = EpochPlan(SIZES, seed=5, epoch=2, batch_size=300, local_batch_size=local, law=LAW)
        batches = [plan.batch(0, slot) for slot in range(300 // local)]
        shown.append([np.concatenate(column) for column in zip(*batches, strict=True)])
    for other in shown[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(shown[0], other, strict=True))


def repeated(repeats: int, batch_size: int, local: int, *, epoch: int = 2) -> list[BatchPlan]:
    """Return the steps of an epoch with repeated augmentation, each a whole global batch."""
    settings = {"seed": 5, "epoch": epoch, "batch_size": batch_size, "local_batch_size": local, "law": LAW, "repeats": repeats}
    plan = EpochPlan(SIZES, **settings)
    steps = []
    for step in range(len(SIZES) // batch_size):
        slots = [plan.batch(step, slot) for slot in range(batch_size // local)]
        steps.append(BatchPlan(*(np.concatenate(column) for column in zip(*slots, strict=True))))
    return steps


@pytest.mark.parametrize(("repeats", "batch_size"), [(2, 24), (3, 24), (4, 32), (3, 32), (5, 24), (40, 24)])
def test_with_repeated_augmentation_a_step_shows_each_of_its_images_so_many_times(repeats, batch_size):
    steps = repeated(repeats, batch_size, 8)
    for step in steps:
        shown = Counter(step.ids.tolist())
        assert len(shown) == -(-batch_size // repeats)
        assert set(shown.values()) <= {batch_size // len(shown), batch_size // len(shown) + 1}
        assert len(np.unique(step.keys)) == batch_size
    ids = [set(step.ids.tolist()) for step in steps]
    assert len(set().union(*ids)) == sum(map(len, ids)), "an image came back in a later step of the epoch"


def test_the_repeats_of_an_image_are_cut_and_flipped_anew():
    step = repeated(4, 64, 8)[0]
    different = [len({tuple(box) for box in step.crops[step.ids == image].tolist()}) for image in set(step.ids.tolist())]
    assert different.count(4) >= 12, different  # of a very long image every box may be the centre
    assert len({(image, flip) for image, flip in zip(step.ids.tolist(), step.flips.tolist(), strict=True)}) > 16


def test_the_repeats_of_an_image_stand_in_different_slots():
    plan = EpochPlan(SIZES, seed=5, epoch=2, batch_size=64, local_batch_size=8, law=LAW, repeats=4)
    for slot in range(8):
        assert len(set(plan.batch(0, slot).ids.tolist())) == 8


def test_the_first_showing_with_repeats_is_the_one_without():
    alone = EpochPlan(SIZES, seed=5, epoch=2, batch_size=16, local_batch_size=8, law=LAW).batch(1, 1)
    among = EpochPlan(SIZES, seed=5, epoch=2, batch_size=64, local_batch_size=8, law=LAW, repeats=4).batch(1, 1)
    assert equal(alone, among)


def test_repeats_do_not_depend_on_the_slots():
    whole = repeated(3, 48, 48)
    assert all(equal(one, other) for one, other in zip(whole, repeated(3, 48, 8), strict=True))


def test_a_step_beyond_the_epoch_is_refused():
    arithmetic = laid_out(2, 2)
    with pytest.raises(AssertionError, match="beyond the epoch"):
        planned(arithmetic).batch(arithmetic.steps_per_epoch, 3)


def evaluated(samples: int, world_size: int, batch_size: int) -> list[list[BatchPlan]]:
    """Return the plans of every rank."""
    return [
        list(eval_plans(SIZES[:samples], batch_size=batch_size, rank=rank, world_size=world_size)) for rank in range(world_size)
    ]


@pytest.mark.parametrize("samples", [1, 3, 4, 28, 29, 317])
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_evaluation_sees_every_sample_exactly_once(world_size, samples):
    ranks = evaluated(samples, world_size, 4)
    ids = np.concatenate([plan.ids for plans in ranks for plan in plans])
    assert sorted(ids.tolist()) == list(range(samples))
    for plan in (plan for plans in ranks for plan in plans):
        assert np.array_equal(plan.crops, np.concatenate([np.zeros((len(plan.ids), 2)), SIZES[plan.ids]], axis=1))
        assert not plan.flips.any()


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_evaluation_batches_are_cut_alike_for_any_number_of_ranks(world_size):
    alone = Counter(tuple(plan.ids.tolist()) for plan in evaluated(317, 1, 8)[0])
    shared = Counter(tuple(plan.ids.tolist()) for plans in evaluated(317, world_size, 8) for plan in plans)
    assert shared == alone


def test_evaluation_shards_are_uneven_and_not_padded():
    ranks = evaluated(10, 4, 4)
    assert [[plan.ids.tolist() for plan in plans] for plans in ranks] == [[[0, 1, 2, 3]], [[4, 5, 6, 7]], [[8, 9]], []]
    assert [len(plans) for plans in evaluated(317, 7, 8)] == [6, 6, 6, 6, 6, 5, 5]
