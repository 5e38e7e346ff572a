"""The law of boxes, flips and order: torchvision's distribution, a slow twin's numbers, and pure functions of their arguments."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from src.data.plan import CropLaw, EpochPlan, random_resized_crops, sample_keys, whole_images
from src.draws import Purpose, uniform

IMAGENET = CropLaw((0.08, 1.0), (3 / 4, 4 / 3), 0.5)
NARROW = CropLaw((0.35, 1.0), (1.0, 1.0), 0.5)
WIDE_RATIOS = CropLaw((0.02, 0.6), (0.2, 6.0), 0.5)
ODD_SIZES = [(1, 1), (1, 500), (500, 1), (2, 3), (28, 28), (33, 4000)]


def same_size(width: int, height: int, count: int) -> NDArray[np.int32]:
    return np.tile(np.array([[width, height]], np.int32), (count, 1))


def boxes_of(width: int, height: int, law: CropLaw, count: int, seed: int = 0) -> NDArray[np.int32]:
    return random_resized_crops(sample_keys(seed, 0, np.arange(count)), same_size(width, height, count), law)


def slow_box(key: int, width: int, height: int, law: CropLaw) -> list[int]:
    """Follow torchvision's get_params line by line, with this project's uniforms."""
    (low, high), (narrow, wide) = law.scale, law.ratio
    areas, ratios = (uniform(key, purpose, np.arange(10)).tolist() for purpose in (Purpose.CROP_AREA, Purpose.CROP_RATIO))
    for share, where in zip(areas, ratios, strict=True):
        area = width * height * (low + (high - low) * share)
        ratio = math.exp(math.log(narrow) + (math.log(wide) - math.log(narrow)) * where)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            x = math.floor(float(uniform(key, Purpose.CROP_X)) * (width - w + 1))
            y = math.floor(float(uniform(key, Purpose.CROP_Y)) * (height - h + 1))
            return [x, y, w, h]
    w, h = width, height
    if width / height < narrow:
        h = round(w / narrow)
    elif width / height > wide:
        w = round(h * wide)
    return [(width - w) // 2, (height - h) // 2, w, h]


@pytest.mark.parametrize("law", [IMAGENET, NARROW, WIDE_RATIOS], ids=["imagenet", "square", "wide"])
def test_boxes_equal_a_slow_twin(law):
    rng = np.random.default_rng(1)
    sizes = np.concatenate([np.array(ODD_SIZES, np.int32), rng.integers(1, 900, (700, 2), dtype=np.int32)])
    keys = sample_keys(3, 1, np.arange(len(sizes)))
    boxes = random_resized_crops(keys, sizes, law)
    assert boxes.dtype == np.int32
    expected = [slow_box(int(key), width, height, law) for key, (width, height) in zip(keys, sizes.tolist(), strict=True)]
    assert boxes.tolist() == expected


@pytest.mark.parametrize(("width", "height"), [(500, 375), (333, 500), (28, 28), (400, 100), (90, 640)])
def test_boxes_have_torchvisions_distribution(width, height):
    count = 6_000
    image = torch.empty((3, height, width), device="meta")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
    y, x, h, w = np.array(drawn).T
    ours = dict(zip("xywh", boxes_of(width, height, IMAGENET, count).T, strict=True))
    for what, reference, found in (
        ("area", w * h, ours["w"] * ours["h"]),
        ("ratio", w / h, ours["w"] / ours["h"]),
        ("x", x, ours["x"]),
        ("y", y, ours["y"]),
        ("right", width - x - w, width - ours["x"] - ours["w"]),
        ("below", height - y - h, height - ours["y"] - ours["h"]),
    ):
        p = stats.ks_2samp(reference, found).pvalue
        assert p > 1e-3, f"{what} of boxes in {width} x {height} px differs from torchvision's: p={p:.1g}"


@pytest.mark.parametrize(("width", "height"), ODD_SIZES)
@pytest.mark.parametrize("law", [IMAGENET, NARROW, WIDE_RATIOS], ids=["imagenet", "square", "wide"])
def test_boxes_lie_inside_the_image(width, height, law):
    x, y, w, h = boxes_of(width, height, law, 3_000).T
    assert (x >= 0).all()
    assert (y >= 0).all()
    assert (w >= 1).all()
    assert (h >= 1).all()
    assert (x + w <= width).all()
    assert (y + h <= height).all()


@pytest.mark.parametrize(("ratio", "size"), [((3.0, 4.0), (1, 1)), ((0.2, 0.3), (1, 1)), ((3.0, 4.0), (1, 2))])
def test_the_fallback_box_has_at_least_one_pixel(ratio, size):
    x, y, w, h = boxes_of(*size, CropLaw((0.9, 1.0), ratio, 0.5), 50).T
    assert (w >= 1).all()
    assert (h >= 1).all()
    assert (x + w <= size[0]).all()
    assert (y + h <= size[1]).all()


def test_boxes_reach_every_edge():
    boxes = boxes_of(28, 20, CropLaw((0.08, 0.2), (3 / 4, 4 / 3), 0.5), 4_000)
    for axis, side in ((0, 28), (1, 20)):
        assert boxes[:, axis].min() == 0
        assert (boxes[:, axis] + boxes[:, axis + 2]).max() == side


def test_a_law_of_the_whole_image_gives_the_whole_image():
    assert boxes_of(64, 64, CropLaw((1.0, 1.0), (1.0, 1.0), 0.0), 20).tolist() == [[0, 0, 64, 64]] * 20


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
def test_the_share_of_flips(probability):
    count = 20_000
    flips = _plan(count, law=IMAGENET._replace(flip_probability=probability)).batch(0, 0).flips
    deviation = math.sqrt(probability * (1 - probability) / count)
    assert abs(flips.mean() - probability) <= 4 * deviation


def test_flips_do_not_follow_the_boxes():
    batch = _plan(20_000).batch(0, 0)
    for column in batch.crops.T:
        assert stats.ks_2samp(column[batch.flips], column[~batch.flips]).pvalue > 1e-3


def _plan(count: int, *, seed: int = 0, epoch: int = 0, law: CropLaw = IMAGENET) -> EpochPlan:
    return EpochPlan(same_size(500, 375, count), seed=seed, epoch=epoch, batch_size=count, local_batch_size=count, law=law)


def test_an_epoch_never_changes():
    plan = EpochPlan(same_size(500, 375, 12), seed=7, epoch=3, batch_size=4, local_batch_size=4, law=IMAGENET)
    assert plan.order.tolist() == [2, 4, 9, 0, 11, 8, 1, 7, 6, 10, 3, 5]
    batch = plan.batch(1, 0)
    assert batch.ids.tolist() == [11, 8, 1, 7]
    assert batch.keys.tolist() == [17594711034761677907, 11683987044805497905, 2717444788805323266, 14917701493559092102]
    assert batch.crops.tolist() == [[33, 1, 338, 374], [31, 45, 142, 181], [88, 57, 311, 287], [46, 12, 249, 234]]
    assert batch.flips.tolist() == [True, False, True, True]


def test_a_batch_is_of_the_promised_types():
    batch = _plan(10).batch(0, 0)
    assert [array.dtype for array in batch] == [np.int64, np.uint64, np.int32, np.bool_]
    assert [array.shape for array in batch] == [(10,), (10,), (10, 4), (10,)]


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}, {"seed": 1, "epoch": 1}])
def test_another_seed_or_epoch_is_another_epoch(other):
    count = 5_000
    one, two = _plan(count), _plan(count, **other)
    assert sorted(two.order.tolist()) == list(range(count))
    assert (one.order == two.order).sum() < 10
    assert abs(stats.spearmanr(np.argsort(one.order), np.argsort(two.order)).statistic) < 5 / math.sqrt(count)
    first, second = (_in_order_of_ids(plan.batch(0, 0)) for plan in (one, two))
    assert not (first.keys == second.keys).any()
    assert (first.crops == second.crops).all(axis=1).mean() < 0.01
    assert abs((first.flips == second.flips).mean() - 0.5) < 4 * 0.5 / math.sqrt(count)


def test_seed_and_epoch_are_told_apart():
    assert (_plan(50, seed=1, epoch=0).order != _plan(50, seed=0, epoch=1).order).any()


def test_repeats_of_a_sample_have_keys_of_their_own():
    ids = np.arange(1_000)
    keys = np.concatenate([sample_keys(0, 0, ids, repeat) for repeat in range(4)])
    assert len(np.unique(keys)) == 4_000


def test_the_order_is_not_the_order_of_any_repeats_keys():
    order = _plan(200).order
    assert all((order != np.argsort(sample_keys(0, 0, np.arange(200), repeat))).any() for repeat in range(12))


def test_whole_images_are_planned_as_stored():
    sizes = np.array([[5, 7], [1, 500], [30, 20]], np.int32)
    plan = whole_images(np.array([2, 0]), sizes)
    assert plan.crops.tolist() == [[0, 0, 30, 20], [0, 0, 5, 7]]
    assert plan.flips.tolist() == [False, False]
    assert [array.dtype for array in plan] == [np.int64, np.uint64, np.int32, np.bool_]


def _in_order_of_ids(batch):
    by_id = np.argsort(batch.ids)
    return type(batch)(*(array[by_id] for array in batch))
