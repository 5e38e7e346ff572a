"""BetonSource: what it tells and hands out, of files made by hand."""

import gc
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from src.batch import DataError
from src.data.beton.sidecar import sidecar_path
from src.data.beton.writer import write_beton
from src.data.sources.beton import BetonSource
from tests.unit.data.beton.plain import HEAD, Listed, descriptor, opened, patch, quiet, samples, stored_bytes, write_plain

CONTENT = samples()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_plain(tmp_path / "train.beton", CONTENT)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A file with its sidecar."""
    return write_beton(Listed(CONTENT), tmp_path / "train.beton", workers=2, progress=quiet, jpeg_bytes="original").path


@pytest.mark.parametrize("table", [True, False], ids=["table", "empty table"])
def test_it_tells_what_is_in_the_file(tmp_path, table):
    source = opened(write_plain(tmp_path / "train.beton", CONTENT, table=table))
    assert len(source) == len(CONTENT)
    assert source.labels.tolist() == [sample.label for sample in CONTENT]
    assert source.sizes.tolist() == [[sample.width, sample.height] for sample in CONTENT]
    assert source.classes == ("class_0000", "class_0001", "class_0002")
    assert not source.named
    assert source.faults == {}
    for index, sample in enumerate(CONTENT):
        encoded = source.read(index)
        assert (encoded.width, encoded.height) == (sample.width, sample.height)
        assert encoded.kind == ("raw" if isinstance(sample.data, np.ndarray) else "codestream")
        if encoded.kind == "raw":
            assert np.array_equal(encoded.data, sample.data)
        elif table:
            assert bytes(encoded.data) == sample.data
        else:  # up to whatever begins next, which behind a page's last sample are zeros
            assert bytes(encoded.data).rstrip(b"\0") == sample.data


def test_what_it_hands_out_is_read_only_and_not_a_copy(path):
    source = opened(path)
    assert source.read(0).data.readonly
    assert not source.read(3).data.flags.writeable
    assert np.shares_memory(np.frombuffer(source.read(0).data, np.uint8), np.frombuffer(source.read(0).data, np.uint8))
    image = source.read(3).data
    del source
    gc.collect()
    assert np.array_equal(image, CONTENT[3].data), "it lives on behind its source"


def test_chosen_samples_keep_their_row_numbers(path):
    seen = []
    source = BetonSource(path, choose=lambda labels: seen.append(labels.tolist()) or np.array([7, 2, 7]))
    assert seen == [[sample.label for sample in CONTENT]]
    assert source.ids.tolist() == [7, 2, 7]
    assert source.labels.tolist() == [CONTENT[row].label for row in (7, 2, 7)]
    assert [source.name(index) for index in range(3)] == ["train.beton#7", "train.beton#2", "train.beton#7"]
    assert [stored_bytes(source.read(index)) for index in range(3)] == [bytes(CONTENT[row].data) for row in (7, 2, 7)]


def test_none_may_be_chosen(path):
    assert len(BetonSource(path, choose=lambda labels: np.arange(0))) == 0


def test_the_number_of_classes_may_be_larger_than_the_labels_tell(path):
    assert opened(path, num_classes=5).classes[-1] == "class_0004"
    with pytest.raises(DataError, match=r"4 labels outside its classes, the first 2 of sample #2: there are 2 classes"):
        opened(path, num_classes=2)


@pytest.mark.parametrize("label", [-1, 2**40])
def test_impossible_labels_are_refused(path, label):
    patch(path, HEAD + 4 * 24 + 16, "<q", label)
    with pytest.raises(DataError, match=rf"1 labels outside its classes, the first {label} of sample #4"):
        opened(path)


def test_an_image_without_pixels_is_a_fault_of_that_sample_alone(path):
    patch(path, HEAD + 2 * 24 + 1, "<H", 0)
    source = BetonSource(path, choose=lambda labels: np.array([1, 2, 3]))
    assert source.faults == {1: "has no pixels"}
    assert bytes(source.read(1).data) == b""
    assert stored_bytes(source.read(0)) == CONTENT[1].data


FORMS = {0: "d", 1: "q", 3: "QQ", 4: "Q", 5: "QQ"}


def write_fields(path: Path, order: tuple[int, ...]) -> Path:
    """One sample with fields of these types, its row packed as a C compiler would; images and byte ranges need no alignment."""
    row = b""
    for type_id in order:
        row += bytes(-len(row) % (8 if type_id in (0, 1, 4) else 1))
        values = {0: [0.5], 1: [1], 3: [2**21, 5], 4: [2**21]}.get(type_id, [])
        row += struct.pack("<BHHQ", 0, 20, 16, 2**21 + 64) if type_id == 2 else struct.pack(f"<{FORMS.get(type_id, '')}", *values)
    row += bytes(-len(row) % 8)
    head = struct.pack("<HHIQQ", 2, len(order), 2**21, 1, 2**22)
    head += b"".join(descriptor(type_id, b"f%d" % type_id) for type_id in order) + row
    body = (head + bytes(2**21 + 64 - len(head)) + CONTENT[0].data).ljust(2**22, b"\0")
    path.write_bytes(body + struct.pack("<QQQQQQ", 0, 2**21, 5, 0, 2**21 + 64, len(CONTENT[0].data)))
    return path


@pytest.mark.parametrize("order", [(1, 2), (2, 0, 1), (4, 1, 2, 3), (3, 2, 1, 1, 0)], ids=str)
def test_fields_are_found_in_any_order(tmp_path, order):
    source = opened(write_fields(tmp_path / "odd.beton", order))
    assert source.labels.tolist() == [1]
    assert bytes(source.read(0).data) == CONTENT[0].data


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (
            (2, 2, 1),
            "has the fields f2 (RGB image), f2 (RGB image), f1 (int). Supported are files with exactly one RGB image and an",
        ),
        ((2, 0), "has the fields f2 (RGB image), f0 (float). Supported are files with exactly one RGB image and an int, the label"),
        ((1, 3), "has the fields f1 (int), f3 (bytes). Supported are files with exactly one RGB image and an int, the label"),
        ((1, 2, 255), "has the fields f1 (int), f2 (RGB image), f255 (type 255), of which f255 are custom, and the file does not"),
        ((1, 2, 9), "has the fields f1 (int), f2 (RGB image), f9 (type 9), of which f9 are unknown"),
    ],
    ids=str,
)
def test_fields_that_cannot_be_read_are_listed(tmp_path, order, message):
    with pytest.raises(DataError) as refusal:
        opened(write_fields(tmp_path / "odd.beton", order))
    assert message in str(refusal.value)


def test_a_file_that_changes_after_opening_is_refused_and_not_a_crash(path):
    source = opened(path)
    os.truncate(path, 2**21)
    with pytest.raises(DataError, match=r"train.beton#3 cannot be read: .*train.beton was changed after it was opened"):
        source.read(3)


def test_a_file_that_is_written_over_in_place_is_refused(path):
    source = opened(path)
    os.utime(path, ns=(0, 0))
    with pytest.raises(DataError, match="changed after it was opened"):
        source.read(0)


def test_a_file_that_is_replaced_stays_whole_for_who_has_it_open(path, tmp_path):
    source = opened(path)
    write_plain(tmp_path / "new", CONTENT[:2]).replace(path)
    assert stored_bytes(source.read(9)) == CONTENT[9].data


def test_descriptors_are_given_back(path):
    descriptors = Path("/proc/self/fd")
    gc.collect()
    before = len(list(descriptors.iterdir()))
    for _ in range(20):
        opened(path).read(0)
    gc.collect()
    assert len(list(descriptors.iterdir())) <= before


def test_class_names_come_from_the_sidecar(pair):
    source = opened(pair)
    assert source.classes == ("ant", "bee", "ça")
    assert source.named
    assert len(source.verify()) == 64


def test_without_the_sidecar_classes_have_numbers_and_nothing_can_be_verified(pair):
    sidecar_path(pair).unlink()
    source = opened(pair)
    assert source.classes == ("class_0000", "class_0001", "class_0002")
    assert not source.named
    with pytest.raises(DataError, match=r"no train.beton.json beside it"):
        source.verify()


def test_bad_images_that_the_sidecar_lists_are_faults(pair):
    rewrite(pair, bad=[[5, "no end-of-image marker"], [0, "is black"]])
    assert BetonSource(pair, choose=lambda labels: np.array([4, 5, 6])).faults == {1: "no end-of-image marker"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bytes": 5}, "does not belong to train.beton, or one of them is damaged: it tells of 5 bytes, the file has"),
        ({"samples": 11}, "does not belong to train.beton, or one of them is damaged: it tells of 11 samples, the file has 12"),
        ({"fingerprint": "0" * 64}, "does not belong to train.beton, or one of them is damaged: it tells of the fingerprint 0000"),
        ({"classes": ["ant", "bee"]}, "4 labels outside its classes, the first 2 of sample #2: train.beton.json names 2 classes"),
        ({"classes": ["ant", "bee", "ant"]}, "its class names are not distinct strings"),
        ({"classes": [1, 2, 3]}, "its class names are not distinct strings"),
        ({"bad": [["x", "y"]]}, "is damaged (ValueError"),
        ({"bad": 5}, "is damaged (TypeError"),
        ({"version": 2}, "is of version 2; this program reads 1"),
        ({"kind": "other"}, "does not describe a .beton"),
    ],
)
def test_a_sidecar_that_is_of_another_file_or_damaged_is_refused(pair, change, message):
    rewrite(pair, **change)
    with pytest.raises(DataError) as refusal:
        opened(pair)
    assert message in str(refusal.value)


def test_a_letter_that_is_changed_in_a_class_name_is_noticed(pair):
    beside = sidecar_path(pair)
    beside.write_bytes(beside.read_bytes().replace(b'"bee"', b'"bea"'))
    with pytest.raises(DataError, match=r"train\.beton\.json is damaged: it is not what was written\. Fetch it again"):
        opened(pair)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe\x00", b"[" * 100_000, b'{"kind": "beton-sidecar", "version": 1}'])
def test_a_sidecar_that_is_no_sidecar_is_refused(pair, text):
    sidecar_path(pair).write_bytes(text)
    with pytest.raises(DataError, match=r"train\.beton\.json .*Fetch it again"):
        opened(pair)


def test_a_changed_bit_in_an_image_is_seen_by_verify(pair):
    source = opened(pair)
    at = pair.read_bytes().index(CONTENT[4].data) + 300
    patch(pair, at, "<B", pair.read_bytes()[at] ^ 1)
    with pytest.raises(DataError, match=r"is damaged: its sha256 is [0-9a-f]{64}, and should be"):
        source.verify()


def rewrite(path: Path, **change: object) -> None:
    beside = sidecar_path(path)
    told = json.loads(beside.read_text())
    del told["seal"]  # as older versions wrote it: every other check has to hold by itself
    beside.write_text(json.dumps(told | change))
