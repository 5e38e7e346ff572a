"""Augmentation's contract: what a sample becomes depends on no micro-batch, rank, slot or resume; mixing belongs to the slot."""

import numpy as np
import pytest
import torch

from src.augment.build import TrainingAugmentation, build_augmentation
from src.augment.normalise import Normalise
from src.batch import Batch, BatchPlan
from src.config import load
from src.data.plan import CropLaw, EpochPlan
from src.training.arithmetic import Arithmetic

CPU, K, SIZE, SAMPLES, SEED = torch.device("cpu"), 11, 33, 96, 4
NOT_MIXED = {
    "rand_augment": ("augment=rand_augment",),
    "trivial_augment": ("augment=trivial_augment",),
    "timm": ("augment.operations=rand_augment_timm", "augment.magnitude=7", "augment.magnitude_std=0.5"),
    "jitter": ("augment.brightness=0.4", "augment.contrast=0.4", "augment.saturation=0.4", "augment.hue=0.1"),
    "erasing": ("augment.erase_probability=0.5",),
    "noise": ("augment.erase_probability=0.5", "augment.erase_with=noise"),
    "all": ("augment=rand_augment", "augment.hue=0.2", "augment.contrast=0.3", "augment.erase_probability=0.5"),
}
PIXELS = torch.randint(0, 256, (SAMPLES, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(SAMPLES) % K


def built(*overrides: str) -> TrainingAugmentation:
    config = load(["data=synthetic", *overrides]).augment
    normalise = Normalise((0.5,) * 3, (0.2,) * 3, device=CPU, dtype=torch.float32, memory_format=torch.channels_last)
    return build_augmentation(config, normalise=normalise, seed=SEED, num_classes=K, device=CPU)


def of(plan: BatchPlan, *, layout: torch.memory_format = torch.channels_last) -> Batch:
    """Make the batch that an engine would."""
    ids = torch.from_numpy(plan.ids)
    return Batch(PIXELS[ids].contiguous(memory_format=layout), LABELS[ids], plan)


def planned(arithmetic: Arithmetic, epoch: int = 0) -> EpochPlan:
    sizes = np.full((SAMPLES, 2), SIZE, np.int32)
    whole = CropLaw((1.0, 1.0), (1.0, 1.0), 0.0)
    local = arithmetic.local_batch_size
    return EpochPlan(sizes, seed=SEED, epoch=epoch, batch_size=arithmetic.batch_size, local_batch_size=local, law=whole)


def trained_on(augment: TrainingAugmentation, world_size: int, accumulation: int, local: int, **of_what) -> dict[int, torch.Tensor]:
    """Augment an epoch as this many ranks do. Returns each sample's image."""
    batch_size = local * accumulation * world_size
    arithmetic = Arithmetic(batch_size, local, accumulation, world_size, SAMPLES // batch_size, SAMPLES // batch_size)
    plan, seen = planned(arithmetic), {}
    for rank in range(world_size):
        for step in range(arithmetic.steps_per_epoch):
            for micro_batch in range(accumulation):
                slot = arithmetic.slot(micro_batch, rank)
                batch = of(plan.batch(step, slot), **of_what)
                images = augment(batch, step=step, slot=slot).images
                seen |= dict(zip(batch.plan.ids.tolist(), images, strict=True))
    return seen


@pytest.mark.parametrize("name", NOT_MIXED)
def test_a_sample_is_augmented_the_same_for_any_spread_over_slots_and_ranks(name):
    overrides = NOT_MIXED[name]
    wanted = trained_on(built(*overrides), 1, 1, 96)
    assert len(wanted) == SAMPLES
    plain = trained_on(built("augment=none"), 1, 1, 96)
    assert sum(not torch.equal(wanted[index], plain[index]) for index in wanted) > SAMPLES / 4
    for world_size, accumulation, local in ((1, 1, 8), (2, 2, 8), (3, 4, 8), (1, 12, 8), (4, 1, 3), (1, 1, 1)):
        found = trained_on(built(*overrides), world_size, accumulation, local, layout=torch.contiguous_format)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[index], wanted[index]) for index in wanted), (world_size, accumulation, local)


def test_the_same_sample_is_augmented_otherwise_in_the_next_epoch_():
    augment = built("augment=trivial_augment")
    arithmetic = Arithmetic(SAMPLES, SAMPLES, 1, 1, 1, 1)
    images = []
    for epoch in range(2):
        plan = planned(arithmetic, epoch).batch(0, 0)
        images.append(augment(of(plan), step=epoch, slot=0).images[np.argsort(plan.ids)])
    assert (images[0] != images[1]).flatten(1).any(1).float().mean() > 0.8


@pytest.mark.parametrize(
    "overrides", [("augment=mix",), ("augment=mix", "augment.mix_probability=0.5"), (*NOT_MIXED["all"], "augment.mixup_alpha=0.3")]
)
def test_a_slot_is_mixed_the_same_on_whichever_rank_it_is_and_after_a_resume(overrides):
    """One rank with accumulation 4, or two with 2, take the same slots; a new object, as after a resume, goes on as the old one."""
    arithmetic = Arithmetic(32, 8, 4, 1, 3, 3)
    plan, old = planned(arithmetic), built(*overrides)
    wanted = {(step, slot): old(of(plan.batch(step, slot)), step=step, slot=slot) for step in range(3) for slot in range(4)}
    for step, rank, micro_batch in ((2, 0, 0), (2, 1, 0), (2, 0, 1), (2, 1, 1), (1, 1, 1)):
        slot = micro_batch * 2 + rank
        found = built(*overrides)(of(planned(arithmetic).batch(step, slot)), step=step, slot=slot)
        assert torch.equal(found.images, wanted[step, slot].images)
        assert torch.equal(found.targets, wanted[step, slot].targets)
        assert found.strengths == wanted[step, slot].strengths
    weights = {augmented.strengths["mix_lambda"] for augmented in wanted.values()}
    assert len(weights) > 4


def test_called_again_for_a_step_it_gives_the_same():
    """Sharpness-aware minimisation sees its images twice."""
    augment, batch = built("augment=mix", *NOT_MIXED["noise"]), of(planned(Arithmetic(32, 32, 1, 1, 3, 3)).batch(0, 0))
    first, again = (augment(batch, step=7, slot=2) for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets, again.targets)
    assert first.strengths == again.strengths
