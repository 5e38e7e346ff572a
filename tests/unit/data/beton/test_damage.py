"""A damaged .beton is refused at opening, with the reason; whatever happens to its bytes, nothing crashes."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.batch import DataError
from src.data.beton.writer import write_beton
from src.data.sources.beton import BetonSource
from tests.unit.data.beton.plain import DATA_AT, HEAD, PAGE, ROW, Listed, opened, patch, quiet, samples, write_plain

CONTENT = samples()
ROUNDS = 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_plain(tmp_path / "train.beton", CONTENT)


def refused(path: Path) -> str:
    with pytest.raises(DataError) as refusal:
        opened(path)
    message = str(refusal.value)
    assert message.startswith(str(path))
    return message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is only 0 bytes long, shorter than the header of a .beton (24). Copy the file again"),
        (b"\x02\x00\x02", "is only 3 bytes long, shorter than the header"),
        (b"\xff\xd8\xff\xe0" + bytes(3000), "is no .beton that can be read: it begins with ff d8 ff e0, not with 02 00"),
        (b"\x01\x00" + bytes(3000), "is no .beton that can be read: it begins with 01 00 00 00, not with 02 00 (FFCV's version 2)"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    assert message in refused(tmp_path / "x")


def test_what_is_no_file_is_refused(tmp_path):
    assert "is no file" in refused(tmp_path)
    assert "cannot be opened: No such file" in refused(tmp_path / "missing.beton")


TABLE_AT, FIRST_ROW = 16, HEAD
POINTER = 5  # within a row
DAMAGES = {
    "unfinished": (TABLE_AT, "<Q", 0, "is unfinished: its alloc_table_ptr is 0, so the writer did not finish"),
    "table beyond": (TABLE_AT, "<Q", 2**40, "its allocation table begins at byte 1,099,511,627,776, but the file ends at"),
    "remainder": (TABLE_AT, "<Q", 4 * PAGE + 1, "its allocation table is 287 bytes, not a multiple of 24"),
    "table in metadata": (TABLE_AT, "<Q", HEAD, f"overlaps its metadata (up to {HEAD + 12 * ROW:,})"),
    "page size": (4, "<I", PAGE + 1, "its pages are 2,097,153 bytes, which is no power of two from 2,097,152"),
    "small pages": (4, "<I", 4096, "its pages are 4,096 bytes"),
    "no fields": (2, "<H", 0, "holds 0 fields and 12 samples"),
    "no samples": (8, "<Q", 0, "holds 2 fields and 0 samples"),
    "many fields": (2, "<H", 65535, "the descriptors of its 65535 fields end at byte 68,221,959"),
    "many samples": (8, "<Q", 2**63, "the metadata of its 9,223,372,036,854,775,808 samples ends at byte"),
    "pointer in the metadata": (FIRST_ROW + POINTER, "<Q", 100, "1 samples point outside the data region"),
    "pointer beyond": (FIRST_ROW + 2 * ROW + POINTER, "<Q", 2**64 - 1, "region (2,394 to 8,388,608) (the first is #2)"),
    "pointer into an image": (FIRST_ROW + POINTER, "<Q", DATA_AT + 9, "1 samples start in no allocation (the first is #0)"),
    "pointer to another": (FIRST_ROW + 24 + POINTER, "<Q", DATA_AT, "in the allocation of another sample (the first is #1)"),
    "raw size": (FIRST_ROW + 3 * ROW + 1, "<H", 24, "are raw, but their size is not width * height * 3 (the first is #3)"),
    "mode": (FIRST_ROW, "<B", 2, "1 samples are neither JPEG nor raw (the first is #0)"),
    "size": (-8, "<Q", 2**63, "1 rows of its allocation table reach outside the data region"),
    "allocation elsewhere": (-16, "<Q", 0, "1 rows of its allocation table reach outside the data region"),
    "no such sample": (-24, "<Q", 12, "1 rows of its allocation table belong to no sample (there are 12)"),
    "overlap": (-8, "<Q", 3000, "1 rows of its allocation table overlap the next one"),
    "straddling": (-8, "<Q", PAGE + 1, "1 rows of its allocation table straddle two pages"),
    "other size": (-8, "<Q", 0, "1 samples start in no allocation (the first is #0)"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_contradictions_are_refused_with_the_reason(path, name):
    at, form, value, message = DAMAGES[name]
    patch(path, at, form, value)
    assert message in refused(path)


@pytest.mark.parametrize("swapped", [(0, 1), (3, 7)])
def test_pointers_that_were_swapped_are_noticed(path, swapped):
    data = bytearray(path.read_bytes())
    a, b = (slice(HEAD + row * ROW, HEAD + row * ROW + 13) for row in swapped)
    data[a], data[b] = data[b], data[a]
    path.write_bytes(data)
    assert "2 samples start in the allocation of another sample" in refused(path)


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (HEAD - 1, "the descriptors of its 2 fields end at byte 2,106"),
        (HEAD + 5, "the metadata of its 12 samples ends at byte"),
        (DATA_AT + 70, "is truncated: its allocation table begins at byte 8,388,608"),
        (4 * PAGE + 24 * 11, "1 samples start in no allocation (the first is #0)"),
        (4 * PAGE + 24 * 11 + 3, "not a multiple of 24"),
    ],
)
def test_truncations_are_refused_with_the_reason(path, length, message):
    path.write_bytes(path.read_bytes()[:length])
    assert message in refused(path)


def test_with_an_empty_table_two_samples_at_one_place_are_refused(tmp_path):
    path = write_plain(tmp_path / "train.beton", CONTENT, table=False)
    patch(path, HEAD + ROW + POINTER, "<Q", DATA_AT)
    assert "two samples start at the same byte" in refused(path)


def corrupt(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Flip, cut, insert or zero, mostly where something stands."""
    regions = [(0, 24), (0, HEAD), (HEAD, HEAD + ROW * len(CONTENT)), (DATA_AT, DATA_AT + 20_000), (len(data) - 300, len(data))]
    low, high = regions[rng.integers(len(regions))] if rng.random() < 0.9 else (0, len(data))
    at = int(rng.integers(low, high))
    match rng.integers(5):
        case 0 | 1:
            for place in rng.integers(low, high, rng.integers(1, 9)):
                data[place] ^= 1 << int(rng.integers(8))
        case 2:
            del data[at:]
        case 3:
            data[at:at] = rng.bytes(int(rng.integers(1, 40)))
        case _:
            end = at + int(rng.integers(1, 200))
            data[at:end] = bytes(len(data[at:end]))
    return data


def decodes(source: BetonSource, index: int) -> bool:
    encoded = source.read(index)
    assert [encoded.width, encoded.height] == source.sizes[index].tolist()
    if encoded.kind == "raw":
        assert encoded.data.shape == (encoded.height, encoded.width, 3)
        return True
    try:
        with Image.open(io.BytesIO(encoded.data), formats=["JPEG"]) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "with the sidecar"])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # a header that claims a huge image
@pytest.mark.filterwarnings("ignore:Truncated File Read:UserWarning", "ignore:Image appears to be a malformed MPO:UserWarning")
def test_a_thousand_corruptions_are_refused_or_read_cleanly(tmp_path, beside):
    """With the sidecar, what opens has every label, size and pointer as it was written; alone, it only agrees with itself."""
    path = tmp_path / "train.beton"
    if beside:
        write_beton(Listed(CONTENT), path, workers=2, progress=quiet, jpeg_bytes="original", page_size=PAGE)
    else:
        write_plain(path, CONTENT)
    sound, original = path.read_bytes(), opened(path)
    rng = np.random.default_rng(7)
    counts = dict.fromkeys(("refused", "opened", "bad images"), 0)
    for _ in range(ROUNDS):
        with open(path, "r+b") as file:  # in place: a new file of megabytes each time takes longer
            damaged = corrupt(bytearray(sound), rng)
            file.truncate(len(damaged))
            file.write(damaged)
        try:
            source = opened(path)
        except DataError as error:
            assert re.match(f"{re.escape(str(tmp_path))}/train.beton(.json)? ", str(error))
            counts["refused"] += 1
            continue
        counts["opened"] += 1
        assert 0 < len(source) == len(source.labels) == len(source.sizes)
        assert 0 <= source.labels.min() <= source.labels.max() < len(source.classes)
        counts["bad images"] += sum(not decodes(source, index) for index in range(len(source)))
        if beside:
            assert source.classes == original.classes
            assert source.labels.tolist() == original.labels.tolist()
            assert source.sizes.tolist() == original.sizes.tolist()
            if damaged != sound:
                with pytest.raises(DataError, match="its sha256 is"):
                    source.verify()
    if beside:  # images so small are within the fingerprint
        del counts["bad images"]
    assert min(counts.values()) > 20, counts
