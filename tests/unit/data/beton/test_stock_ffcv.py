"""Stock FFCV as the oracle: we read byte for byte what its writer wrote, and it reads what ours wrote."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.beton.encode import shrunk_sizes
from src.data.beton.writer import write_beton
from tests.pictures import encode, noise
from tests.unit.data.beton.plain import Listed, Sample, opened, quiet, stored_bytes

STOCK = Path(__file__).parent / "stock.py"
VARIANTS = ("jpg", "raw", "smart", "proportion", "reversed", "many", "large")
SIZES = [(20 + 7 * number % 90, 16 + 11 * number % 70) for number in range(30)]
IMAGES = [noise(width, height, number) for number, (width, height) in enumerate(SIZES)]
LABELS = [number * 5 % 4 for number in range(len(SIZES))]
# FFCV decodes with libjpeg's fast transform, Pillow with the accurate one; on noise they differ by 1.1 grey levels on average.
FAST_TRANSFORM = 2.0


def stock(verb: str, folder: Path) -> None:
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))  # on one core FFCV's writer never ends; tests side by side have but one
    try:
        run = subprocess.run([sys.executable, STOCK, verb, folder], capture_output=True, text=True, timeout=240, check=False)
    finally:
        os.sched_setaffinity(0, own)
    assert run.returncode == 0, run.stderr[-2000:]


@pytest.fixture(scope="module", autouse=True)
def ffcv() -> None:
    run = subprocess.run([sys.executable, "-c", "import ffcv"], capture_output=True, text=True, timeout=240, check=False)
    if run.returncode:
        pytest.skip(f"FFCV cannot be imported: {run.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="module")
def theirs(ffcv, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every variant, as FFCV wrote it, and as FFCV reads it."""
    folder = tmp_path_factory.mktemp("stock")
    np.savez(folder / "images.npz", labels=LABELS, **{f"image{number}": image for number, image in enumerate(IMAGES)})
    stock("write", folder)
    return folder


@pytest.mark.parametrize("variant", VARIANTS)
def test_we_read_byte_for_byte_what_ffcv_wrote(theirs, variant):
    source, expected = opened(theirs / f"{variant}.beton"), np.load(theirs / f"{variant}.npz")
    assert len(source) == len(IMAGES)
    assert source.labels.tolist() == expected["labels"].tolist() == LABELS
    assert source.sizes.tolist() == expected["sizes"].tolist()
    modes = set()
    for number, image in enumerate(IMAGES):
        encoded = source.read(number)
        modes.add(encoded.kind)
        assert (encoded.kind == "raw") == expected["modes"][number]
        assert stored_bytes(encoded) == expected[f"data{number}"].tobytes()
        if encoded.kind == "raw":
            assert np.array_equal(encoded.data, image)
        else:
            with Image.open(io.BytesIO(encoded.data)) as decoded:
                assert list(decoded.size) == source.sizes[number].tolist()
    two = {"smart", "proportion", "reversed"}
    assert len(modes) == (2 if variant in two else 1)


def test_shrunk_sizes_are_ffcvs(theirs):
    sizes = np.array(SIZES, np.int32)
    assert (sizes.max(axis=1) > 60).any()
    assert shrunk_sizes(sizes, 60).tolist() == np.load(theirs / "jpg.npz")["sizes"].tolist()


def test_pixels_are_written_as_the_very_same_file(theirs, tmp_path):
    content = [Sample(image, *size, label) for image, size, label in zip(IMAGES, SIZES, LABELS, strict=True)]
    written = write_beton(Listed(content, "abcd"), tmp_path / "raw.beton", workers=2, progress=quiet, mode="raw", page_size=2**21)
    assert written.path.read_bytes() == (theirs / "raw.beton").read_bytes()


def test_a_file_whose_table_ffcv_left_empty_is_read(theirs, tmp_path):
    data = (theirs / "many.beton").read_bytes()
    (tmp_path / "cut.beton").write_bytes(data[: int.from_bytes(data[16:24], "little")])
    whole, cut = opened(theirs / "many.beton"), opened(tmp_path / "cut.beton")
    assert cut.labels.tolist() == whole.labels.tolist()
    for number in range(len(whole)):
        assert stored_bytes(cut.read(number)).rstrip(b"\0") == stored_bytes(whole.read(number))


@pytest.fixture(scope="module")
def ours(ffcv, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of ours, and what FFCV's reader makes of them."""
    folder = tmp_path_factory.mktemp("ours")
    kinds = ("jpeg", "grey", "progressive", "cmyk", "png", "palette")
    content = [
        Sample(encode(kinds[number % 6], *size, number), *size, label)
        for number, (size, label) in enumerate(zip(SIZES, LABELS, strict=True))
    ]
    options = {"original": {"jpeg_bytes": "original"}, "shrunk": {"max_resolution": 33}, "mixed": {"mode": "proportion"}}
    for name, option in options.items():
        write_beton(Listed(content, "abcd"), folder / f"{name}.beton", workers=2, progress=quiet, page_size=2**21, **option)
    # Pages of 2 MiB that have to grow for the third image.
    large = [Sample(noise(*size, 1), *size, 0) for size in ((500, 400), (900, 700), (1200, 900), (300, 20), (1200, 901))]
    write_beton(
        Listed(large, "a"), folder / "grown.beton", workers=1, progress=quiet, page_size=2**21, mode="raw", max_resolution=None
    )
    stock("read", folder)
    return folder


@pytest.mark.parametrize("name", ["original", "shrunk", "mixed", "grown"])
def test_ffcv_reads_byte_for_byte_what_we_wrote(ours, name):
    source, found = opened(ours / f"{name}.beton"), np.load(ours / f"{name}.npz")
    assert found["labels"].tolist() == source.labels.tolist()
    assert found["sizes"].tolist() == source.sizes.tolist()
    for number in range(len(source)):
        assert found[f"data{number}"].tobytes() == stored_bytes(source.read(number))


@pytest.fixture(scope="module")
def loaded(ffcv, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of ours with images of one size, as FFCV's decoder asks for, gone through its loader."""
    folder = tmp_path_factory.mktemp("loaded")
    kinds = ("jpeg", "grey", "progressive")
    content = [Sample(encode(kinds[number % 3], 64, 48, number, quality=95), 64, 48, number % 4) for number in range(14)]
    for mode in ("jpg", "raw", "proportion"):
        write_beton(Listed(content, "abcd"), folder / f"{mode}.beton", workers=2, progress=quiet, mode=mode, jpeg_bytes="original")
    pixels = [Sample(noise(1000, 900, number), 1000, 900, number) for number in range(3)]  # 2.7 MB each: pages of 4 MiB
    write_beton(
        Listed(pixels, "abcd"), folder / "grown.beton", workers=1, progress=quiet, mode="raw", max_resolution=None, page_size=2**21
    )
    stock("load", folder)
    return folder


@pytest.mark.parametrize("cache", ["True", "False"], ids=["os_cache", "process cache"])
@pytest.mark.parametrize("name", ["jpg", "raw", "proportion", "grown"])
def test_ffcvs_loader_makes_the_same_pixels_of_what_we_wrote(loaded, name, cache):
    source, found = opened(loaded / f"{name}.beton"), np.load(loaded / f"{name}.loaded.npz")
    assert found[f"labels{cache}"].tolist() == source.labels.tolist()
    for number, image in enumerate(found[f"images{cache}"]):
        encoded = source.read(number)
        if encoded.kind == "raw":
            assert np.array_equal(image, encoded.data)
        else:
            with Image.open(io.BytesIO(encoded.data)) as decoded:
                difference = np.abs(image.astype(int) - np.asarray(decoded.convert("RGB")))
            assert difference.mean() < FAST_TRANSFORM
            assert difference.max() <= 16
