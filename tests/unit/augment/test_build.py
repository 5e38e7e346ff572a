"""Training augmentation as it is built: the order of its parts, what it tells, what it leaves alone."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from src.augment.build import TrainingAugmentation, build_augmentation
from src.augment.laws import draw_jitter
from src.augment.normalise import Normalise
from src.augment.operations import Operation
from src.batch import Augmented, Batch, BatchPlan
from src.config import load

CPU, K = torch.device("cpu"), 7
EVERYTHING = (
    *("augment=mix", "augment.operations=rand_augment", "augment.brightness=0.4", "augment.hue=0.1"),
    *("augment.erase_probability=0.5", "augment.erase_with=noise"),
)


def normalise(dtype=torch.float32) -> Normalise:
    return Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), device=CPU, dtype=dtype, memory_format=torch.channels_last)


def built(*overrides: str, seed: int = 0, dtype=torch.float32) -> TrainingAugmentation:
    config = load(["data=synthetic", *overrides]).augment
    return build_augmentation(config, normalise=normalise(dtype), seed=seed, num_classes=K, device=CPU)


@pytest.fixture
def batch(pictures, keys) -> Batch:
    count = 16
    plan = BatchPlan(np.arange(count), keys(count), np.zeros((count, 4), np.int32), np.zeros(count, np.bool_))
    return Batch(pictures(count, 32).contiguous(memory_format=torch.channels_last), torch.arange(count) % K, plan)


def test_with_everything_off_images_are_normalised_and_labels_are_the_batchs_own(batch):
    augment = built("augment=standard")
    images, targets, strengths = augment(batch, step=0, slot=0)
    assert torch.equal(images, normalise()(batch.images))
    assert targets is batch.labels
    assert strengths == {}
    assert augment.watched == ()


@pytest.mark.parametrize(
    ("overrides", "watched"),
    [
        (("augment=rand_augment",), ("magnitude",)),
        (("augment=trivial_augment",), ("magnitude",)),
        (("augment.operations=rand_augment_timm",), ("magnitude",)),
        (("augment.erase_probability=0.5",), ("erased",)),
        (("augment=mix",), ("mix_lambda",)),
        (("augment.cutmix_alpha=1.0", "augment.mix_probability=0.0"), ()),
        (("augment.contrast=0.4",), ()),
        (EVERYTHING, ("magnitude", "erased", "mix_lambda")),
    ],
)
def test_every_micro_batch_tells_what_is_watched_as_plain_floats(overrides, watched, batch):
    augment = built(*overrides)
    assert augment.watched == watched
    for step in range(8):
        strengths = augment(batch, step=step, slot=1).strengths
        assert tuple(strengths) == watched
        assert all(type(value) is float and 0 <= value <= 16 for value in strengths.values())


def test_nothing_of_the_engine_is_modified(batch):
    images, labels = batch.images.clone(), batch.labels.clone()
    for overrides in (("augment=standard", "augment.erase_probability=1.0"), EVERYTHING, ("augment.cutmix_alpha=1.0",)):
        for step in range(4):
            built(*overrides)(batch, step=step, slot=0)
        assert torch.equal(batch.images, images)
        assert torch.equal(batch.labels, labels)


def test_operations_come_before_erasing_and_erasing_before_mixing(batch):
    changed = built("augment=rand_augment")(batch, step=3, slot=2).images
    erased = built("augment=rand_augment", "augment.erase_probability=0.5")(batch, step=3, slot=2)
    boxes = (erased.images == 0).all(dim=1)
    assert torch.equal(torch.where(boxes[:, None], changed, erased.images), changed)
    assert erased.strengths["erased"] == boxes.flatten(1).any(1).sum() > 0
    mixed = built("augment=rand_augment", "augment.erase_probability=0.5", "augment.mixup_alpha=0.2")(batch, step=3, slot=2)
    weight = float(mixed.targets[0, batch.labels[0]])
    partner = [
        (index, other)
        for index in range(16)
        for other in range(16)
        if torch.allclose(mixed.images[index], weight * erased.images[index] + (1 - weight) * erased.images[other], atol=1e-5)
    ]
    assert {index for index, _ in partner} == set(range(16))
    assert len({other for _, other in partner}) == 16


def test_unmixed_slots_have_plain_labels_and_a_weight_of_one(batch):
    augment = built("augment=mix", "augment.mix_probability=0.5")
    seen: list[Augmented] = [augment(batch, step=step, slot=0) for step in range(30)]
    unmixed = [each for each in seen if each.targets.dtype == torch.int64]
    assert 5 < len(unmixed) < 25
    assert all(each.strengths["mix_lambda"] == 16 and each.targets is batch.labels for each in unmixed)
    for each in seen:
        if each.targets.dtype == torch.float32:
            assert each.targets.shape == (16, K)
            own = each.targets.gather(1, batch.labels[:, None]).sum()  # partners of the same class add to it
            assert 0 <= each.strengths["mix_lambda"] <= float(own) + 1e-4


def test_targets_are_exact_where_images_are_16_bit(batch):
    wide, narrow = (
        built("augment.mixup_alpha=0.4", dtype=dtype)(batch, step=5, slot=0) for dtype in (torch.float32, torch.bfloat16)
    )
    assert narrow.images.dtype == torch.bfloat16
    assert torch.equal(wide.targets, narrow.targets)


def test_jitter_gives_the_pixels_of_torchvisions_functions_in_the_drawn_order(batch):
    settings = {"brightness": 0.4, "contrast": 0.5, "saturation": 0.6, "hue": 0.2}
    found = built(*(f"augment.{name}={value}" for name, value in settings.items()))(batch, step=0, slot=0)
    functions = {
        Operation.BRIGHTNESS: functional.adjust_brightness,
        Operation.CONTRAST: functional.adjust_contrast,
        Operation.COLOR: functional.adjust_saturation,
        Operation.HUE: functional.adjust_hue,
    }
    layers, wanted = draw_jitter(batch.plan.keys, **settings), []
    for index, image in enumerate(batch.images):
        for operation, value in zip(layers.operations[:, index], layers.values[:, index], strict=True):
            image = functions[operation](image, float(value))
        wanted.append(image)
    assert torch.equal(found.images, normalise()(torch.stack(wanted)))


def test_global_generators_are_not_moved(batch):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = built(*EVERYTHING)(batch, step=0, slot=0)
    torch.manual_seed(99)
    assert torch.equal(built(*EVERYTHING)(batch, step=0, slot=0).images, first.images)
    torch.set_rng_state(torch_state)
    built(*EVERYTHING)(batch, step=1, slot=0)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_timms_operations_uncover_the_mean_colour(keys):
    count = 64
    plan = BatchPlan(np.arange(count), keys(count), np.zeros((count, 4), np.int32), np.zeros(count, np.bool_))
    white = Batch(torch.full((count, 3, 32, 32), 255, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64), plan)
    found = built("augment.operations=rand_augment_timm", "augment.num_operations=1")(white, step=0, slot=0).images
    mean = normalise()(torch.tensor([124, 116, 104], dtype=torch.uint8).view(1, 3, 1, 1))
    assert (found == mean).all(dim=1).any()
    assert (
        found.amin((1, 2, 3)) < normalise()(torch.zeros(1, 3, 1, 1, dtype=torch.uint8)).max()
    ).sum() <= count * 0.15  # black: rare


def test_one_image_alone_can_be_mixed(batch):
    alone = Batch(batch.images[:1], batch.labels[:1], BatchPlan(*(part[:1] for part in batch.plan)))
    for step in range(6):
        images, targets, strengths = built("augment=mix")(alone, step=step, slot=0)
        assert strengths["mix_lambda"] == 1
        assert torch.allclose(images, normalise()(alone.images), atol=1e-5)
        assert targets[0, alone.labels[0]] == pytest.approx(1)
