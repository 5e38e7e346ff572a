"""idx files that are not what they should be: each is named with what is wrong, and nothing is written."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from src.config import ConfigError
from tests.unit.imagenet.tiny import Tiny, idx_bytes, write, write_idx


def compressed(data: bytes) -> bytes:
    return gzip.compress(data, 1)


IMAGES, LABELS = "train-images.gz", "val-labels.gz"
DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "magic": (IMAGES, lambda data: compressed(b"\0\0\x08\x01" + data[4:]), "magic number 00000801, not 00000803"),
    "magic of labels": (LABELS, lambda data: compressed(b"\0\0\x09\x01" + data[4:]), "magic number 00000901, not 00000801"),
    "shape": (
        IMAGES,
        lambda data: compressed(idx_bytes(np.zeros((200, 7, 7), np.uint8))),
        "shape 200 x 7 x 7, not 200 x 28 x 28",
    ),
    "count": (LABELS, lambda data: compressed(idx_bytes(np.zeros(7, np.uint8))), "has the shape 7, not 120"),
    "truncated": (IMAGES, lambda data: compressed(data)[:-1000], "is truncated"),
    "empty": (LABELS, lambda data: b"", "magic number , not 00000801"),
    "only a header": (IMAGES, lambda data: compressed(data[:10]), "ends within its header"),
    "too short inside": (IMAGES, lambda data: compressed(data[:-1]), "holds fewer bytes than its header says"),
    "too long inside": (LABELS, lambda data: compressed(data + b"\0"), "holds more bytes than its header says"),
    "not gzip": (LABELS, lambda data: data, "is not sound gzip"),
    "a flipped bit of the sum": (LABELS, lambda data: compressed(data)[:-8] + b"\0" * 8, "is not sound gzip (CRC check failed"),
    "another content": (
        IMAGES,
        lambda data: compressed(data[:-1] + bytes([data[-1] ^ 1])),
        "another content than the published one",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_nothing_is_written(tiny: Tiny, tmp_path: Path, damage: str) -> None:
    name, break_it, message = DAMAGES[damage]
    path = tiny.source / name
    path.write_bytes(break_it(gzip.decompress(path.read_bytes())))
    with pytest.raises(ConfigError) as caught:
        write(tiny, tmp_path / "target")
    assert len(caught.value.problems) == 1
    assert str(caught.value.problems[0]).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("label", [3, 10])
def test_labels_that_are_not_balanced_are_refused(tiny: Tiny, tmp_path: Path, label: int) -> None:
    labels = tiny.labels["val"].copy()
    labels[labels == 4] = label
    file = write_idx(tiny.source / "val-labels.gz", labels)
    with pytest.raises(ConfigError, match="labels a class, not 12 of each"):
        write(tiny._replace(splits=(tiny.splits[0], tiny.splits[1]._replace(labels=file))), tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_all_damaged_files_are_named_at_once(tiny: Tiny, tmp_path: Path) -> None:
    for path in tiny.source.iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(ConfigError) as caught:
        write(tiny, tmp_path / "target")
    assert len(caught.value.problems) == 4


def test_a_source_without_a_file_is_refused_by_the_files_name(tiny: Tiny, tmp_path: Path) -> None:
    (tiny.source / IMAGES).unlink()
    with pytest.raises(ConfigError, match=rf"source = '{tiny.source}': no {IMAGES} there"):
        write(tiny, tmp_path / "target")
    assert not (tmp_path / "target").exists()
