"""The ffcv engine on .beton files: bit for bit what FFCV makes of the plan's boxes, and nothing silently wrong."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from src.batch import BatchPlan, BoxResize, DataError, Encoded, ResizeCentreCrop, StaleIndex
from src.data.bad_images import BadImages
from src.data.engines.ffcv import FfcvEngine, why_not_importable
from src.data.engines.pixels import decode_box, write_row
from src.data.sources.beton import BetonSource, open_all
from tests.contracts.engine_ffcv import write_as_is
from tests.contracts.engines import CPU, LAW, pixels_of, plan_of
from tests.pictures import encode, noise
from tests.unit.data.beton.plain import Listed, Sample, write_plain

pytestmark = pytest.mark.timeout(120)
GEOMETRY = BoxResize(24, "bilinear")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True, scope="module")
def ffcv() -> None:
    if (reason := why_not_importable()) is not None:
        pytest.skip(reason)


@pytest.fixture
def build():
    built = []

    def build_engine(source: BetonSource, **options) -> FfcvEngine:
        built.append(FfcvEngine(source, **({"device": CPU, "threads": 2, "prefetch": 2} | options)))
        return built[-1]

    yield build_engine
    for engine in built:
        engine.close()


def mixed(count: int = 24) -> list[Sample]:
    """JPEGs of three kinds and pixels, of many sizes."""
    made = []
    for number in range(count):
        kind, width, height = ("jpeg", "progressive", "raw", "grey")[number % 4], 20 + 5 * number, 150 - 4 * number
        data = noise(width, height, number) if kind == "raw" else encode(kind, width, height, number)
        made.append(Sample(data, width, height, number % 3))
    return made


def beton(path: Path, content: list[Sample]) -> BetonSource:
    return open_all(write_as_is(Listed(content), path))


def twin(encoded: Encoded, box: list[int], flip: bool, side: int) -> NDArray[np.uint8]:
    """Make uint8 (side, side, 3) by FFCV's own two functions, plainly."""
    from ffcv.libffcv import imdecode, resize_crop

    width, height = encoded.width, encoded.height
    if encoded.kind == "raw":
        image = np.ascontiguousarray(encoded.data)
    else:
        image = np.zeros((height, width, 3), np.uint8)
        assert imdecode(np.frombuffer(encoded.data, np.uint8), image, height, width, height, width) == 0
    made = np.zeros((side, side, 3), np.uint8)
    x, y, box_width, box_height = box
    resize_crop(image, y, y + box_height, x, x + box_width, made)
    return made[:, ::-1] if flip else made


def rows(images: torch.Tensor) -> NDArray[np.uint8]:
    return images.permute(0, 2, 3, 1).numpy().copy()


@pytest.mark.parametrize("side", [24, 64])
def test_boxes_flips_and_order_are_the_plans_bit_for_bit(tmp_path, build, side):
    write_as_is(Listed(mixed()), tmp_path / "train.beton")
    source = BetonSource(tmp_path / "train.beton", choose=lambda labels: np.arange(len(labels))[::-1][:20])
    plans = [plan_of(source, np.arange(start, start + 7) * 3 % 20, seed=start) for start in range(6)] + [plan_of(source, [4, 4, 0])]
    assert {bool(flip) for plan in plans for flip in plan.flips} == {True, False}
    for plan, batch in zip(plans, build(source).batches(iter(plans), geometry=BoxResize(side, "bilinear")), strict=True):
        assert batch.plan is plan
        assert batch.labels.tolist() == source.labels[plan.ids].tolist()
        for row, made in enumerate(rows(batch.images)):
            expected = twin(source.read(int(plan.ids[row])), plan.crops[row].tolist(), bool(plan.flips[row]), side)
            assert np.array_equal(made, expected), f"row {row} of {plan}"


def test_evaluation_is_what_stock_ffcv_shows(tmp_path, build):
    """FFCV's own Loader and CenterCropRGBImageDecoder, in a process of its own, which they would change."""
    source = beton(tmp_path / "val.beton", mixed())
    script = """
import sys, numpy as np
from ffcv.fields.rgb_image import CenterCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import ToTensor
image = [CenterCropRGBImageDecoder((28, 28), ratio=28 / 32), ToTensor()]
loader = Loader(sys.argv[1], batch_size=8, num_workers=1, order=OrderOption.SEQUENTIAL, pipelines={"image": image, "label": None})
np.save(sys.argv[2], np.concatenate([images.numpy().copy() for images, in loader]))
"""
    command = [sys.executable, "-c", script, str(source.path), str(tmp_path / "theirs.npy")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    plans = [plan_of(source, range(start, start + 8))._replace(flips=np.zeros(8, np.bool_)) for start in range(0, 24, 8)]
    batches = build(source).batches(iter(plans), geometry=ResizeCentreCrop(32, 28, "bilinear"))
    assert np.array_equal(np.concatenate([rows(batch.images) for batch in batches]), np.load(tmp_path / "theirs.npy"))


def reference(source: BetonSource, plan: BatchPlan, side: int) -> NDArray[np.uint8] | None:
    """Return what the reference makes of a plan of one sample, or None where it is bad."""
    pixels = torch.zeros((1, side, side, 3), dtype=torch.uint8)
    try:
        write_row(decode_box, source, plan, 0, pixels, 0, BoxResize(side, "bilinear"))
    except DataError:
        return None
    return pixels[0].numpy()


def without(jpeg: bytes, marker: int) -> bytes:
    """Leave out every segment of a kind."""
    position, kept = 2, jpeg[:2]
    while jpeg[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
        kept += b"" if jpeg[position + 1] == marker else jpeg[position:end]
        position = end
    return kept + jpeg[position:]


def damaged() -> list[Sample]:
    """Sound images, each before many that are cut, overwritten, or changed by a bit behind their header."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(40):
        kind = ("jpeg", "grey", "progressive", "jpeg")[number % 4]
        options = {"optimize": True} if number % 4 == 0 else {}
        jpeg = encode(kind, 60, 40, number, **options)
        scan = jpeg.index(b"\xff\xda") + 14
        at = int(rng.integers(scan, len(jpeg) - 2))
        flipped = jpeg[:at] + bytes([jpeg[at] ^ 1 << number % 8]) + jpeg[at + 1 :]
        junk = jpeg[:at] + rng.bytes(60) + jpeg[at + 60 :]
        versions = [
            jpeg,
            jpeg[:at],
            flipped,
            junk[: len(jpeg)],
            jpeg[: len(jpeg) - 1 - number],
            without(jpeg, 0xC4),
            without(jpeg, 0xDB),
        ]
        versions += [jpeg[:at] + jpeg[at + number + 1 :], jpeg + b"more", b"junk", rng.bytes(3000)]
        made += [Sample(version, 60, 40, 0) for version in versions]
    return made


def test_a_damaged_jpeg_is_refused_or_shown_as_the_reference_does_and_never_anothers_pixels(tmp_path, build):
    """What is shown of an image does not depend on which images were decoded before it, and is close to the reference's."""
    source = beton(tmp_path / "train.beton", damaged())
    engine = build(source, threads=1)
    plan = plan_of(source, range(len(source)))._replace(crops=np.tile(np.array([[0, 0, 60, 40]], np.int32), (len(source), 1)))
    refused, shown = [], {}
    for order in (range(len(source)), range(len(source))[::-1]):
        for index in order:
            one = BatchPlan(*(column[index : index + 1] for column in plan))
            expected = reference(source, one, 24)
            batches = engine.batches(iter([one]), geometry=GEOMETRY)
            if expected is None:
                with pytest.raises(DataError, match=f"train.beton#{index} "):
                    next(batches)
                refused.append(index)
                continue
            image = rows(next(batches).images)[0]
            assert np.array_equal(shown.setdefault(index, image), image), f"#{index} depends on what came before it"
            difference = np.abs(image.astype(int) - expected).mean()
            assert difference < 6, f"#{index} differs by {difference} from the reference"
    assert len(set(refused)) > len(source) / 3
    assert len(shown) > len(source) / 3


@pytest.mark.parametrize("size", [(30, 200), (45, 131), (46, 130), (45, 60), (90, 260)], ids=str)
def test_an_image_of_another_size_than_the_file_says_is_told(tmp_path, build, size):
    content = mixed(8)
    assert (content[5].width, content[5].height) == (45, 130)
    content[5] = content[5]._replace(data=encode("jpeg", *size))
    source = beton(tmp_path / "train.beton", content)
    with pytest.raises(StaleIndex, match=rf"train.beton#5 is {size[0]} x {size[1]} px, but 45 x 130 px in the index"):
        list(build(source).batches(iter([plan_of(source, range(8))]), geometry=GEOMETRY))


def test_a_bad_image_is_replaced_by_the_plans_choice(tmp_path, build, said):
    content = mixed(12)
    whole = content[4].data
    content[4] = content[4]._replace(data=whole[: len(whole) // 2])
    source = beton(tmp_path / "train.beton", content)
    plan = plan_of(source, [1, 4, 3])
    batch = next(build(source, bad_images=BadImages(source, LAW, most=1)).batches(iter([plan]), geometry=GEOMETRY))
    assert batch.replaced == 1
    assert batch.plan.ids[[0, 2]].tolist() == [1, 3]
    other = BatchPlan(*(column[1:2] for column in batch.plan))
    assert other.ids[0] != 4
    assert batch.labels.tolist() == source.labels[batch.plan.ids].tolist()
    assert np.array_equal(rows(batch.images)[1], reference(source, other, 24))
    assert any("train.beton#4 cannot be decoded" in line for line in said)


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, 0, 0, 5), (0, 0, 36, 5), (30, 0, 6, 5), (0, 138, 5, 1), (2**31 - 1, 0, 2, 2)])
def test_a_box_outside_its_image_is_an_error_that_names_it_and_not_the_end_of_the_process(tmp_path, build, box):
    source = beton(tmp_path / "train.beton", mixed(8))
    assert source.sizes[3].tolist() == [35, 138]
    plan = plan_of(source, range(8))
    plan.crops[3] = box
    with pytest.raises(ValueError, match=r"train.beton#3: the box .* is not within its 35 x 138 px"):
        list(build(source).batches(iter([plan]), geometry=GEOMETRY))


def test_an_unforeseen_error_names_the_samples(tmp_path, build):
    class Failing(BetonSource):
        def read(self, index: int) -> Encoded:
            raise RuntimeError("unforeseen")

    write_as_is(Listed(mixed(8)), tmp_path / "train.beton")
    source = Failing(tmp_path / "train.beton", choose=lambda labels: np.arange(len(labels)))
    with pytest.raises(RuntimeError, match="unforeseen") as failure:
        list(build(source).batches(iter([plan_of(source, [2, 7])]), geometry=GEOMETRY))
    assert "train.beton#2" in "".join(failure.value.__notes__)


@pytest.mark.parametrize("prefetch", [1, 3])
def test_plans_are_taken_as_they_are_needed_and_a_batch_stays_valid(tmp_path, build, prefetch):
    source = beton(tmp_path / "train.beton", mixed())
    taken = []

    def plans():
        for number in range(12):
            taken.append(plan_of(source, range(number, number + 4), seed=number))
            yield taken[-1]

    places = set()
    for number, batch in enumerate(build(source, prefetch=prefetch).batches(plans(), geometry=GEOMETRY), 1):
        images = batch.images.clone()
        time.sleep(0.03)  # time enough to decode all that may be decoded
        assert len(taken) == min(12, number + prefetch)
        assert (batch.images == images).all()
        places.add(batch.images.data_ptr())
    assert number == 12
    assert len(places) <= prefetch + 1


def test_a_file_that_is_written_over_is_noticed(tmp_path, build):
    source = beton(tmp_path / "train.beton", mixed())
    batches = build(source, prefetch=1).batches(iter([plan_of(source, range(4))] * 9), geometry=GEOMETRY)
    next(batches)
    with open(tmp_path / "train.beton", "r+b") as file:
        file.write(b"\x02")
    with pytest.raises(DataError, match="was changed after it was opened"):
        list(batches)


def test_a_file_that_was_exchanged_before_ffcv_opens_it_is_noticed(tmp_path, build):
    source = beton(tmp_path / "train.beton", mixed())
    (tmp_path / "train.beton").unlink()
    beton(tmp_path / "train.beton", mixed()[::-1])
    with pytest.raises(DataError, match="was changed after it was opened"):
        build(source)


def test_a_file_without_its_allocation_table_is_read_by_the_reference_and_that_is_said(tmp_path, build, said):
    source = open_all(write_plain(tmp_path / "train.beton", mixed(8), table=False))
    plan = plan_of(source, range(8))
    images = rows(next(build(source).batches(iter([plan]), geometry=GEOMETRY)).images)
    for row, image in enumerate(images):
        assert np.array_equal(image, reference(source, BatchPlan(*(column[row : row + 1] for column in plan)), 24))
    assert any(line.startswith("WARNING 8 of the 8 samples") for line in said)


def test_two_engines_share_no_state(tmp_path, build):
    """Many threads, one compiled function, scratch of each thread's own."""
    source = beton(tmp_path / "train.beton", mixed())
    plans = [plan_of(source, np.arange(40) * 7 % 24, seed) for seed in range(4)]
    alone = [pixels_of(build(source, threads=1).batches(iter(plans), geometry=GEOMETRY)) for _ in range(2)][1]
    first, second = (build(source, threads=4).batches(iter(plans), geometry=GEOMETRY) for _ in range(2))
    for one, other, expected in zip(first, second, alone, strict=True):
        assert np.array_equal(one.images.numpy(), expected)
        assert np.array_equal(other.images.numpy(), expected)


def python(script: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", "-c", script, *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


def test_the_process_keeps_its_threads(tmp_path):
    """Importing FFCV sets torch's and numba's to one; OpenCV's are not started either."""
    beton(tmp_path / "train.beton", mixed())
    script = """
import json, os, sys, threading
from pathlib import Path
import numba, torch
torch.set_num_threads(3)
before = [torch.get_num_threads(), numba.get_num_threads()]
from src.batch import BoxResize
from src.data.engines.ffcv import FfcvEngine
from src.data.plan import whole_images
from src.data.sources.beton import open_all
import numpy as np
source = open_all(Path(sys.argv[1]))
engine = FfcvEngine(source, device=torch.device("cpu"), threads=2, prefetch=1)
built = len(os.listdir("/proc/self/task"))
plan = whole_images(np.arange(24), source.sizes)
for side in (24, 512):
    list(engine.batches(iter([plan]), geometry=BoxResize(side, "bilinear")))
ran = len(os.listdir("/proc/self/task"))
engine.close()
print(json.dumps([before, [torch.get_num_threads(), numba.get_num_threads()], ran - built, threading.active_count()]))
"""
    before, after, native, threads = json.loads(python(script, str(tmp_path / "train.beton")))
    assert after == before
    assert native == 2, "the engine's own threads and no others"
    assert threads == 1


def test_where_ffcv_is_missing_the_message_tells_how_to_install_it():
    script = """
import sys
sys.modules["ffcv"] = None
import torch
from src.config import ConfigError
from src.data.engines.ffcv import FfcvEngine, why_not_importable
print(why_not_importable())
try:
    FfcvEngine(None, device=torch.device("cpu"), threads=1, prefetch=1)
except ConfigError as error:
    print(error)
"""
    reason, *refusal = python(script).splitlines()
    for text in (reason, " ".join(refusal)):
        for word in (
            "FFCV cannot be imported",
            "imagenet-trainer[ffcv]",
            "pkg-config libturbojpeg0-dev libopencv-dev",
            "conda-forge",
        ):
            assert word in text
    assert "data.engine=auto" in " ".join(refusal)
