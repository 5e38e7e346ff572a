"""One policy for bad images, the same in every engine: replaced by what the plan offers, counted, and raised beyond the cap."""

import re
from pathlib import Path

import numpy as np
import pytest
from loguru import logger

from src.batch import BoxResize, DataError, Engine, ResizeCentreCrop, Source
from src.data.bad_images import BadImages
from src.data.engines.torchvision import TorchvisionEngine
from src.data.plan import replacement
from tests.contracts.engines import CPU, ENGINES, LAW, folder_of, plan_of
from tests.pictures import encode

pytestmark = pytest.mark.timeout(120)
GEOMETRY = BoxResize(16, "bilinear")
COUNT, BAD = 40, (3, 4, 17)


def damage(data: bytes, kind: str) -> bytes:
    """Break a JPEG in a way that keeps its size in the index true."""
    match kind:
        case "truncated":
            return data[: len(data) * 2 // 3]
        case "junk":
            return b"junk" * 50
        case "empty":
            return b""
        case "no header":
            return data[:2] + b"\0" * 60 + data[62:]
        case _:
            raise AssertionError(kind)


@pytest.fixture
def folder(tmp_path: Path) -> Source:
    files = {f"ant/{n:02}.jpg": encode("jpeg", 60, 50, n) for n in range(COUNT)}
    return folder_of(tmp_path / "train", files, tmp_path / "cache")


@pytest.fixture
def warnings_told() -> list[str]:
    told: list[str] = []
    handle = logger.add(lambda message: told.append(str(message)), level="WARNING")
    yield told
    logger.remove(handle)


def harm(tmp_path: Path, kind: str, numbers: tuple[int, ...] = BAD, name: str = "") -> None:
    if (name, kind) == ("ffcv", "empty"):
        pytest.skip("a .beton with an image of no bytes is refused when it is opened")
    for number in numbers:
        file = tmp_path / "train" / "ant" / f"{number:02}.jpg"
        file.write_bytes(damage(file.read_bytes(), kind))


def plans_of(source: Source) -> list:
    return [plan_of(source, range(start, start + 8)) for start in range(0, COUNT, 8)]


def replacing(name: str, source: Source, most: int = 10) -> Engine:
    return ENGINES[name](source, bad_images=BadImages(source, LAW, most=most))


@pytest.mark.parametrize("name", list(ENGINES))
@pytest.mark.parametrize("kind", ["truncated", "junk", "empty", "no header"])
def test_what_the_plan_offers_is_shown_instead_and_counted(tmp_path, folder, name, kind, warnings_told):
    harm(tmp_path, kind, name=name)
    engine = replacing(name, folder)
    plans = plans_of(folder)
    offered = {number: replacement(plans[number // 8], number % 8, 0, folder.sizes, LAW) for number in BAD}
    assert not {int(plan.ids[0]) for plan in offered.values()} & set(BAD), "choose other numbers: a replacement is bad itself"
    shown = []
    for number, batch in enumerate(engine.batches(iter(plans), geometry=GEOMETRY)):
        shown.append((batch.images.numpy().copy(), batch.labels.tolist(), batch.plan, batch.replaced))
        expected = plans[number]
        for row, index in enumerate(expected.ids.tolist()):
            wanted = offered[index] if index in BAD else None
            got = [column[row] for column in batch.plan]
            want = [column[0] for column in wanted] if wanted else [column[row] for column in expected]
            assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))
    engine.close()
    assert [count for _, _, _, count in shown] == [2, 0, 1, 0, 0]
    # What is shown is what an engine makes that is asked for the replacement outright.
    outright = ENGINES[name](folder)
    for (pixels, labels, plan, _), batch in zip(
        shown, outright.batches(iter([each[2] for each in shown]), geometry=GEOMETRY), strict=True
    ):
        # Engines that are near the reference let it make replacements.
        difference = np.abs(pixels.astype(int) - batch.images.numpy()).mean(axis=(1, 2, 3))
        assert (difference <= (0 if outright.pixels.exact else 6)).all()
        assert labels == batch.labels.tolist() == folder.labels[plan.ids].tolist()
    outright.close()
    assert sum("another is shown in its place" in text for text in warnings_told) == len(BAD)
    assert any(re.search(r"\b0?3\b.* cannot be decoded", text) for text in warnings_told)


@pytest.mark.parametrize("name", list(ENGINES))
def test_the_cap_raises_all_the_same_and_counts_different_images(tmp_path, folder, name):
    harm(tmp_path, "truncated")
    plans = plans_of(folder)
    twice = replacing(name, folder, most=3)
    for _ in range(2):  # the same three again are no new ones
        assert sum(batch.replaced for batch in twice.batches(iter(plans), geometry=GEOMETRY)) == 3
    twice.close()
    engine = replacing(name, folder, most=2)
    batches = engine.batches(iter(plans), geometry=GEOMETRY)
    assert [next(batches).replaced for _ in range(2)] == [2, 0]
    with pytest.raises(DataError, match=r"data\.max_bad_images=2.*17"):
        next(batches)
    engine.close()


@pytest.mark.parametrize("name", list(ENGINES))
@pytest.mark.parametrize("geometry", [GEOMETRY, ResizeCentreCrop(20, 16, "bilinear")], ids=["box", "centre"])
@pytest.mark.parametrize("kind", ["truncated", "junk", "empty", "no header"])
def test_without_the_policy_it_raises_with_the_name(tmp_path, folder, name, geometry, kind):
    """Whatever the box: a region that lies above the damage is no excuse."""
    harm(tmp_path, kind, (17,), name)
    plans = [plan._replace(crops=np.tile(np.array([0, 0, 10, 4], np.int32), (8, 1))) for plan in plans_of(folder)]
    engine = ENGINES[name](folder)
    batches = engine.batches(iter(plans), geometry=geometry)
    assert [len(next(batches).labels) for _ in range(2)] == [8, 8]
    with pytest.raises(DataError, match="17"):
        next(batches)
    engine.close()


def test_replacements_that_are_bad_themselves_are_passed_over(tmp_path, folder):
    plans = plans_of(folder)[:1]
    first = int(replacement(plans[0], 3, 0, folder.sizes, LAW).ids[0])
    second = replacement(plans[0], 3, 1, folder.sizes, LAW)
    assert int(second.ids[0]) not in {first, 3}
    harm(tmp_path, "truncated", (3, first))
    engine = TorchvisionEngine(folder, device=CPU, threads=2, prefetch=1, bad_images=BadImages(folder, LAW, most=5))
    (batch,) = engine.batches(iter(plans), geometry=GEOMETRY)
    assert int(batch.plan.ids[3]) == int(second.ids[0])
    engine.close()


def test_a_folder_of_bad_images_only_ends_with_the_reason(tmp_path, folder):
    harm(tmp_path, "junk", tuple(range(COUNT)))
    engine = TorchvisionEngine(folder, device=CPU, threads=1, prefetch=1, bad_images=BadImages(folder, LAW, most=100))
    with pytest.raises(DataError, match=r"are bad themselves; the first: .*cannot be decoded"):
        next(engine.batches(iter(plans_of(folder)), geometry=GEOMETRY))
    engine.close()
