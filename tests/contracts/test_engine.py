"""The engine's contract on every engine: the plan's pixels, in the plans' order, whatever the threads do."""

import io
import platform
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from src.batch import BatchPlan, BoxResize, Encoded, Engine, Geometry, ResizeCentreCrop
from src.data.plan import eval_plans
from src.data.sources.synthetic import SyntheticSource
from tests.contracts.engines import CLOSENESS, Closeness, Watched, folder_of, open_folder, pixels_of, plan_of
from tests.pictures import KINDS, encode

IMAGENET_SAMPLE = Path(__file__).resolve().parents[3] / "shared" / "data" / "imagenet-sample"
ODD_SIZES = [(1, 1), (1, 50), (50, 1), (2, 3), (24, 24), (28, 28), (26, 333), (500, 375)]
# Elsewhere torchvision resizes bilinearly in float32 and rounds, which may differ by a grey level.
NATIVE = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")


def reference(encoded: Encoded, crop: list[int], flip: bool, geometry: Geometry) -> torch.Tensor:
    """Make uint8 (3, S, S) as a torchvision recipe does, one image at a time."""
    if encoded.kind == "raw":
        image = torch.from_numpy(np.array(encoded.data)).permute(2, 0, 1)
    else:
        with Image.open(io.BytesIO(encoded.data)) as stored:
            image = functional.pil_to_tensor(stored.convert("RGB"))
    mode = InterpolationMode(geometry.interpolation)
    if isinstance(geometry, BoxResize):
        x, y, width, height = crop
        image = functional.crop(image, y, x, height, width)
        image = functional.resize(image, [geometry.image_size] * 2, interpolation=mode, antialias=True)
    else:
        image = functional.resize(image, [geometry.resize_size], interpolation=mode, antialias=True)
        image = functional.center_crop(image, [geometry.image_size] * 2)
    return functional.horizontal_flip(image) if flip else image


def centre_box(width: int, height: int, geometry: ResizeCentreCrop) -> list[int]:
    """Return the box of an engine that cuts first and then resizes."""
    side = max(1, int(geometry.image_size / geometry.resize_size * min(width, height)))
    return [(width - side) // 2, (height - side) // 2, side, side]


def check(source, engine: Engine, plans: list[BatchPlan], geometry: Geometry) -> None:
    """Compare every pixel and label with the reference: alike, or as close as this engine promises."""
    allowed = Closeness(0, 0, 0) if engine.pixels.exact else CLOSENESS[engine.pixels.engine, geometry.interpolation]
    grey_level = 0 if NATIVE or geometry.interpolation == "bicubic" else 1
    number = -1
    for number, batch in enumerate(engine.batches(iter(plans), geometry=geometry)):
        plan = plans[number]
        assert batch.plan is plan
        assert batch.images.shape == (len(plan.ids), 3, geometry.image_size, geometry.image_size)
        assert batch.labels.tolist() == source.labels[plan.ids].tolist()
        for row, index in enumerate(plan.ids.tolist()):
            crop, shown = plan.crops[row].tolist(), geometry
            if engine.pixels.eval_crop == "centre box" and isinstance(geometry, ResizeCentreCrop):
                crop = centre_box(*source.sizes[index].tolist(), geometry)
                shown = BoxResize(geometry.image_size, geometry.interpolation)
            expected = reference(source.read(index), crop, bool(plan.flips[row]), shown)
            difference = (batch.images[row].int() - expected.int()).abs()
            found = Closeness(difference.float().mean().item(), difference[:, 1:-1, 1:-1].max().item(), difference.max().item())
            place = f"{source.name(index)} in batch {number}, box {plan.crops[row]}, {geometry}"
            assert all(f <= a + grey_level for f, a in zip(found, allowed, strict=True)), f"{place}: {found}, not {allowed}"
    assert number == len(plans) - 1


@pytest.fixture
def oddities(tmp_path):
    """Open a folder with every kind of file in every odd size."""
    files = {f"ant/{kind}-{w}x{h}.JPEG": encode(kind, w, h, seed) for kind in KINDS for seed, (w, h) in enumerate(ODD_SIZES)}
    files |= {
        "bee/turned.jpg": encode("jpeg", 40, 30, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
    }
    return folder_of(tmp_path / "train", files, tmp_path / "cache")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("sizes", [(24,), (37,), (24, 24), (28, 24), (41, 24), (40, 33)], ids=str)
def test_pixels_are_those_of_a_torchvision_recipe(oddities, build_engine, sizes, flips, interpolation):
    """(image size) of training boxes, and (shorter side, image size) of evaluation, over and under the stored sizes."""
    geometry = BoxResize(*sizes, interpolation) if len(sizes) == 1 else ResizeCentreCrop(*sizes, interpolation)
    plans = [plan_of(oddities, ids)._replace(flips=np.full(7, flips)) for ids in np.arange(49).reshape(7, 7)]
    check(oddities, build_engine(oddities), plans, geometry)


def test_raw_images_are_made_alike(build_engine):
    source = SyntheticSource(count=20, num_classes=3, stored_size=20, split="train")
    for geometry in (BoxResize(16, "bilinear"), ResizeCentreCrop(18, 16, "bicubic")):
        plans = [plan_of(source, range(start, start + 5)) for start in range(0, 20, 5)]
        check(source, build_engine(source), plans, geometry)


def test_real_imagenet_images(tmp_path, build_engine):
    if not IMAGENET_SAMPLE.is_dir():
        pytest.skip(f"no ImageNet images in {IMAGENET_SAMPLE}")
    (tmp_path / "val").symlink_to(IMAGENET_SAMPLE)  # the index is written beside the link, never beside the images
    source = open_folder(tmp_path / "val", tmp_path)
    assert len(source) == 200
    assert source.problems("data.val_path") == []
    engine = build_engine(source)
    plans = [plan_of(source, range(start, start + 40)) for start in range(0, 200, 40)]
    geometry: Geometry = BoxResize(176, "bilinear")
    check(source, engine, plans, geometry)
    geometry = ResizeCentreCrop(256, 224, "bicubic")
    plans = list(eval_plans(source.sizes, batch_size=32, rank=0, world_size=3))
    check(source, engine, plans, geometry)


@pytest.mark.parametrize("geometry", [BoxResize(16, "bilinear"), ResizeCentreCrop(20, 16, "bilinear")], ids=["box", "centre"])
def test_images_are_uint8_and_channels_last(oddities, build_engine, geometry):
    for batch in build_engine(oddities).batches(iter([plan_of(oddities, range(9))] * 3), geometry=geometry):
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (9, 3, 16, 16)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.dtype == torch.int64
        assert batch.labels.shape == (9,)


def test_order_is_kept_though_the_first_come_last(oddities, build_engine):
    slow_first = Watched(oddities, lambda index: max(0.0, 0.02 - 0.001 * index))
    plans = [plan_of(oddities, range(start, start + 6)) for start in range(0, 48, 6)]
    geometry = BoxResize(16, "bilinear")
    check(oddities, build_engine(slow_first, threads=6, prefetch=5), plans, geometry)


@pytest.mark.parametrize("counts", [[8, 8, 3], [1], [2, 5, 1, 9, 9, 1, 12], [40], []], ids=str)
@pytest.mark.parametrize("prefetch", [1, 3])
def test_batches_are_as_long_as_their_plans(oddities, build_engine, counts, prefetch):
    plans = [plan_of(oddities, range(number, number + count)) for number, count in enumerate(counts)]
    geometry = BoxResize(16, "bilinear")
    check(oddities, build_engine(oddities, prefetch=prefetch), plans, geometry)


def test_a_sample_may_be_shown_twice_in_a_batch(oddities, build_engine):
    plan = plan_of(oddities, [5, 41, 5, 5, 0, 41])
    other = plan_of(oddities, plan.ids, seed=1)
    plans = [plan._replace(crops=np.where(np.arange(6)[:, None] % 2, plan.crops, other.crops))] * 3
    geometry = BoxResize(16, "bicubic")
    check(oddities, build_engine(oddities), plans, geometry)


def test_threads_and_prefetching_change_nothing(oddities, build_engine):
    plans = [plan_of(oddities, range(start, start + 20)) for start in (0, 9, 29, 4, 0, 17)]
    geometry = BoxResize(24, "bilinear")
    made = [
        pixels_of(build_engine(oddities, threads=threads, prefetch=prefetch).batches(iter(plans), geometry=geometry))
        for threads, prefetch in ((1, 1), (1, 4), (5, 1), (3, 2))
    ]
    for other in made[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(made[0], other, strict=True))


def test_geometries_may_follow_each_other(oddities, build_engine):
    engine = build_engine(oddities)
    plans = [plan_of(oddities, range(6))] * 2
    for geometry in (BoxResize(16, "bilinear"), BoxResize(32, "bilinear"), ResizeCentreCrop(20, 18, "bicubic")):
        check(oddities, engine, plans, geometry)


def test_two_at_once_do_not_disturb_each_other(oddities, build_engine):
    """Two engines, and two iterations of one engine, taken in turns: as training and evaluation may."""
    one, two = build_engine(oddities), build_engine(oddities)
    geometries = [BoxResize(16, "bilinear"), ResizeCentreCrop(20, 16, "bicubic"), BoxResize(24, "bilinear")]
    plans = [[plan_of(oddities, range(at, at + 7), seed) for at in range(0, 42, 7)] for seed in range(3)]
    running = [
        engine.batches(iter(own), geometry=geometry)
        for engine, own, geometry in zip((one, one, two), plans, geometries, strict=True)
    ]
    turns = [pixels_of(turn) for turn in zip(*running, strict=True)]
    alone = [pixels_of(one.batches(iter(own), geometry=geometry)) for own, geometry in zip(plans, geometries, strict=True)]
    for turn, expected in zip(turns, zip(*alone, strict=True), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(turn, expected, strict=True))
