"""One sample is augmented alike, whichever engine made its pixels and whichever source it lies in."""

from pathlib import Path
from typing import Any

import pytest
import torch

from src.batch import Augmented
from tests.end_to_end.small_data import COMBINATIONS, settings_of, write_small_data

NET = ("model=small_resnet", "model.width=4", "batch_size=36", "epochs=1", "schedule.warmup_epochs=1", "data.workers=2")
ALONE = (
    *("augment.operations=rand_augment", "augment.num_operations=3", "augment.brightness=0.4", "augment.saturation=0.4"),
    *("augment.erase_probability=0.6",),
)
MIXED = ("augment.mixup_alpha=0.2", "augment.cutmix_alpha=1.0")
SAME_BYTES = ("torchvision/folder", "torchvision/tar", "nvimgcodec/parquet")  # the .beton holds re-encoded images
STEPS = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_data(tmp_path_factory.mktemp("data"))


def augmented(make_run: Any, *settings: str) -> list[Augmented]:
    run = make_run(*settings, *NET, base=())
    seen = []
    for step, batch in zip(range(STEPS), run.epoch_batches(), strict=False):
        images, targets, strengths = run.augment(batch, step=step, slot=0)
        seen.append(Augmented(images.clone(), targets.clone(), dict(strengths)))
    return seen


@pytest.fixture(scope="module")
def references() -> dict[tuple[str, ...], list[Augmented]]:
    return {}


@pytest.mark.parametrize("augment", [ALONE, MIXED], ids=["each image alone", "mixed"])
@pytest.mark.parametrize("name", [name for name in COMBINATIONS if name not in ("torchvision/folder", "torchvision/synthetic")])
def test_one_sample_is_augmented_alike(make_run: Any, data: Path, references: Any, name: str, augment: tuple[str, ...]) -> None:
    if augment not in references:
        references[augment] = augmented(make_run, *settings_of("torchvision/folder", data), *augment)
    found = augmented(make_run, *settings_of(name, data), *augment)
    assert len(found) == STEPS
    for ours, reference in zip(found, references[augment], strict=True):
        assert ours.strengths == reference.strengths
        assert torch.equal(ours.targets, reference.targets)
        # A normalised pixel is never zero: what is, was erased.
        assert torch.equal(ours.images == 0, reference.images == 0)
        if name in SAME_BYTES:
            assert torch.equal(ours.images, reference.images)
        else:
            assert not torch.equal(ours.images, reference.images)


def test_the_reference_is_erased_and_mixed_at_all(make_run: Any, data: Path) -> None:
    alone, mixed = (augmented(make_run, *settings_of("torchvision/folder", data), *augment) for augment in (ALONE, MIXED))
    assert all((batch.images == 0).any() for batch in alone)
    assert all(batch.targets.ndim == 2 for batch in mixed)
    assert all(0 < batch.strengths["mix_lambda"] < 36 for batch in mixed)
