"""DALI: what its own decoder cannot see or take is noticed all the same, and what it cannot take disturbs nothing else."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from src.batch import Batch, BatchPlan, BoxResize, DataError, Encoded, Engine, Geometry, ResizeCentreCrop, Source, StaleIndex
from src.config import ConfigError
from src.data.bad_images import BadImages
from src.data.engines.torchvision import TorchvisionEngine
from src.data.plan import whole_images
from tests.contracts.engines import CPU, LAW, Watched, folder_of, open_folder, pixels_of, plan_of
from tests.pictures import encode

pytestmark = pytest.mark.timeout(60)
BOX = BoxResize(16, "bilinear")
GEOMETRIES: list[Geometry] = [BOX, ResizeCentreCrop(20, 16, "bicubic")]
Build = Callable[..., Engine]


def odd(jpeg: bytes) -> bytes:
    """Put junk before the scan, where Pillow skips it, and DALI refuses the file."""
    scan = jpeg.index(b"\xff\xda")
    return jpeg[:scan] + b"\0\0\x12" + jpeg[scan:]


def broken(jpeg: bytes) -> bytes:
    """Break a JPEG that still begins and ends as one."""
    return b"\xff\xd8" + jpeg


@pytest.fixture(params=["dynamic", "older"])
def executor(request, monkeypatch):
    """DALI's default executor, and the older one: in that, a batch may fail for one behind it."""
    dali = pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install -e '.[dali]'")
    if request.param == "older":
        monkeypatch.setattr(dali, "pipeline_def", functools.partial(dali.pipeline_def, exec_dynamic=False))


@pytest.fixture
def build():
    """Build engines, which are closed behind the test."""
    pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install -e '.[dali]'")
    from src.data.engines.dali import DaliEngine

    built = []

    def build_(source: Source, *, threads: int = 2, prefetch: int = 2, bad_images: BadImages | None = None) -> Engine:
        built.append(DaliEngine(source, device=CPU, threads=threads, prefetch=prefetch, bad_images=bad_images))
        return built[-1]

    yield build_
    for engine in built:
        engine.close()


@pytest.fixture
def images(tmp_path):
    """Open a folder of 40 JPEGs, 40 x 30 px."""
    return folder_of(tmp_path / "train", {f"ant/{n:02}.jpg": encode("jpeg", 40, 30, n) for n in range(40)}, tmp_path / "cache")


def plans_of(source: Source, size: int = 4) -> list[BatchPlan]:
    return [plan_of(source, range(start, start + size)) for start in range(0, len(source) - size + 1, size)]


def harm(tmp_path: Path, changes: dict[int, Callable[[bytes], bytes]]) -> None:
    for number, change in changes.items():
        file = tmp_path / "train" / "ant" / f"{number:02}.jpg"
        file.write_bytes(change(file.read_bytes()))


def kept(batches) -> list[Batch]:
    return [batch._replace(images=batch.images.clone()) for batch in batches]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=["box", "centre"])
def test_an_image_that_only_dali_refuses_is_made_by_the_reference(tmp_path, images, build, executor, geometry):
    plans = plans_of(images)
    good = pixels_of(build(images).batches(iter(plans), geometry=geometry))
    harm(tmp_path, dict.fromkeys((5, 7, 22), odd))
    reference = TorchvisionEngine(images, device=CPU, threads=1, prefetch=1)
    exact = pixels_of(reference.batches(iter(plans), geometry=geometry))
    reference.close()
    engine = build(images, prefetch=3)
    for _ in range(2):
        found = kept(engine.batches(iter(plans), geometry=geometry))
        assert all(batch.plan is plan for batch, plan in zip(found, plans, strict=True))
        shown = np.concatenate([batch.images.numpy() for batch in found])
        refused = np.isin(np.arange(40), (5, 7, 22))
        assert np.array_equal(shown[refused], np.concatenate(exact)[refused])
        assert np.array_equal(shown[~refused], np.concatenate(good)[~refused]), "its neighbours are made as ever"


def test_a_bad_image_that_only_the_decoder_finds_is_told_by_its_name(tmp_path, images, build, executor):
    plans = plans_of(images)
    good = pixels_of(build(images).batches(iter(plans), geometry=BOX))
    harm(tmp_path, {13: broken})
    engine = build(images, prefetch=4)
    batches = engine.batches(iter(plans), geometry=BOX)
    for expected in good[:3]:
        assert np.array_equal(next(batches).images.numpy(), expected), "what comes before the bad file is still delivered"
    with pytest.raises(DataError, match=r"train/ant/13\.jpg cannot be decoded"):
        next(batches)
    rest = pixels_of(engine.batches(iter(plans[4:]), geometry=BOX))
    assert all(np.array_equal(a, b) for a, b in zip(rest, good[4:], strict=True)), "the engine is still of use"


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=["box", "centre"])
def test_bad_images_are_replaced_as_in_every_engine(tmp_path, images, build, executor, geometry):
    plans = plans_of(images)
    good = np.concatenate(pixels_of(build(images).batches(iter(plans), geometry=geometry)))
    harm(tmp_path, {3: broken, 9: broken, 10: lambda jpeg: jpeg[:-200], 11: lambda jpeg: b"", 30: broken})
    (tmp_path / "train" / "ant" / "31.jpg").unlink()
    reference = TorchvisionEngine(images, device=CPU, threads=2, prefetch=1, bad_images=BadImages(images, LAW, most=6))
    expected = kept(reference.batches(iter(plans), geometry=geometry))
    reference.close()
    found = kept(build(images, bad_images=BadImages(images, LAW, most=6)).batches(iter(plans), geometry=geometry))
    assert [batch.replaced for batch in found] == [1, 0, 3, 0, 0, 0, 0, 2, 0, 0]
    for ours, theirs in zip(found, expected, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(ours.plan, theirs.plan, strict=True))
        assert ours.labels.tolist() == theirs.labels.tolist()
    shown, exact = (np.concatenate([batch.images.numpy() for batch in batches]) for batches in (found, expected))
    bad = np.isin(np.arange(40), (3, 9, 10, 11, 30, 31))
    assert np.array_equal(shown[bad], exact[bad])
    assert np.array_equal(shown[~bad], good[~bad])


def test_one_bad_image_too_many_raises(tmp_path, images, build):
    harm(tmp_path, dict.fromkeys((3, 9), broken))
    batches = build(images, bad_images=BadImages(images, LAW, most=1)).batches(iter(plans_of(images)), geometry=BOX)
    assert [next(batches).replaced for _ in range(2)] == [1, 0]
    with pytest.raises(DataError, match="max_bad_images=1"):
        next(batches)


def test_a_truncation_below_the_box_is_noticed(tmp_path, build):
    source = folder_of(tmp_path / "train", {"ant/00.jpg": encode("jpeg", 400, 400)}, tmp_path / "cache")
    plan = whole_images(np.array([0]), source.sizes)._replace(crops=np.array([[0, 0, 80, 80]], np.int32))
    assert len(list(build(source).batches(iter([plan]), geometry=BOX))) == 1
    harm(tmp_path, {0: lambda jpeg: jpeg[: len(jpeg) // 2]})
    with pytest.raises(DataError, match=r"ant/00\.jpg cannot be decoded"):
        list(build(source).batches(iter([plan]), geometry=BOX))


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=["box", "centre"])
@pytest.mark.parametrize("size", [(41, 30), (60, 60), (20, 20)], ids=str)
def test_another_size_than_the_index_says_is_noticed_also_where_the_box_fits(tmp_path, images, build, size, geometry):
    plan = plan_of(images, [13, 14])._replace(crops=np.array([[0, 0, 19, 19], [0, 0, 40, 30]], np.int32))
    harm(tmp_path, {13: lambda jpeg: encode("jpeg", *size)})
    with pytest.raises(StaleIndex, match=rf"ant/13\.jpg is {size[0]} x {size[1]} px, but 40 x 30"):
        list(build(images).batches(iter([plan]), geometry=geometry))


class Mixed(Watched):
    """A source that gives every third image as pixels, not always writable or contiguous ones."""

    def read(self, index: int) -> Encoded:
        encoded = super().read(index)
        if index % 3:
            return encoded
        pixels = np.frombuffer(bytes(range(256)) * 15, np.uint8)[: 30 * 40 * 3].reshape(30, 40, 3)
        return Encoded(pixels[::-1] if index % 2 else pixels, "raw", 40, 30)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=["box", "centre"])
def test_a_batch_may_hold_jpegs_and_raw_images(images, build, executor, geometry):
    mixed = Mixed(images)
    plan = plan_of(images, range(40))
    shown = next(iter(build(mixed).batches(iter([plan]), geometry=geometry))).images.numpy()
    for kind in (np.arange(40) % 3 == 0, np.arange(40) % 3 != 0):
        alone = BatchPlan(*(column[kind] for column in plan))
        expected = next(iter(build(mixed).batches(iter([alone]), geometry=geometry))).images.numpy()
        assert np.array_equal(shown[kind], expected)


def test_batches_may_grow_while_others_are_under_way(images, build, executor):
    counts = [2, 31, 40, 3, 100, 33, 1, 130, 90]
    plans = [plan_of(images, np.arange(count) % 40, seed) for seed, count in enumerate(counts)]
    expected = [pixels_of(build(images).batches(iter([plan]), geometry=BOX))[0] for plan in plans]
    found = pixels_of(build(images, prefetch=4).batches(iter(plans), geometry=BOX))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def native_threads() -> int:
    """Count this process's threads, DALI's own included."""
    return len(list(Path("/proc/self/task").iterdir()))


def test_pipelines_are_used_again_and_stop_with_the_engine(images, build):
    before = native_threads()
    engine = build(images)
    plans, counts = plans_of(images), []
    for image_size in (16, 20, 24, 28, 32, 36):
        for geometry in (BoxResize(image_size, "bilinear"), ResizeCentreCrop(40, 32, "bilinear")):
            assert len(list(engine.batches(iter(plans), geometry=geometry))) == 10
        counts.append(native_threads())
    assert before < counts[0] == counts[-1] == max(counts)
    for interpolation in ("bicubic", "bilinear"):
        for geometry in (BoxResize(16, interpolation), ResizeCentreCrop(40, 32, interpolation)):
            list(engine.batches(iter(plans), geometry=geometry))
    assert native_threads() == counts[0], "more pipelines are kept than a training and an evaluation need"
    running = engine.batches(iter(plans), geometry=BOX)
    next(running)
    engine.close()
    assert native_threads() == before, "also of batches that nobody has read to the end"
    with pytest.raises(RuntimeError):
        list(running)


def test_a_batch_outlives_its_engine(images, build):
    engine = build(images)
    batches = engine.batches(iter(plans_of(images)), geometry=BoxResize(224, "bilinear"))
    batch = next(batches)
    expected = batch.images.clone()
    batches.close()
    engine.close()
    torch.full((8, 4, 3, 224, 224), 255, dtype=torch.uint8)  # what has been freed would be written over
    assert (batch.images == expected).all()


def test_without_dali_the_message_says_what_to_install(images, monkeypatch):
    from src.data.engines.dali import DaliEngine

    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.setitem(sys.modules, "nvidia", None)
    with pytest.raises(ConfigError, match=r"pip install 'imagenet-trainer\[dali\]'.*\[dali-cuda12\]"):
        DaliEngine(images, device=CPU, threads=1, prefetch=1)


def test_real_images_differ_by_a_grey_level_here_and_there(tmp_path, build):
    sample = Path(__file__).resolve().parents[4] / "shared" / "data" / "imagenet-sample"
    if not sample.is_dir():
        pytest.skip(f"no ImageNet images in {sample}")
    (tmp_path / "val").symlink_to(sample)
    source = open_folder(tmp_path / "val", tmp_path)
    plans = plans_of(source, 40)
    for geometry, mean in ((BoxResize(224, "bilinear"), 0.25), (ResizeCentreCrop(256, 224, "bicubic"), 0.3)):
        engine = build(source)
        assert (engine.pixels.engine, engine.pixels.exact, engine.pixels.eval_crop) == ("dali", False, "centre")
        reference = TorchvisionEngine(source, device=CPU, threads=2, prefetch=1)
        for ours, exact in zip(
            engine.batches(iter(plans), geometry=geometry), reference.batches(iter(plans), geometry=geometry), strict=True
        ):
            difference = (ours.images.int() - exact.images.int()).abs().float().mean(dim=(1, 2, 3))
            assert 0 < difference.max() < mean
        reference.close()
