"""Fashion-MNIST's files through the stages' door: the same images as its own door writes."""

import gzip
from pathlib import Path

import pytest

from src.batch import DataError
from src.config import ConfigError
from src.config.prepare import load_prepare
from src.imagenet.fashion.fashion_mnist import SPLITS
from src.imagenet.layouts import fashion_mnist
from src.imagenet.pieces import Found
from tests.unit.imagenet.tiny import Tiny, write, write_tiny


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return write_tiny(tmp_path / "source")


def find(tiny: Tiny, *overrides: str) -> Found:
    return fashion_mnist.found_in(tiny.source, load_prepare(overrides), tiny.splits)


def test_every_file_is_byte_for_byte_what_its_own_door_writes(tiny: Tiny, tmp_path: Path) -> None:
    write(tiny, tmp_path / "target")
    pieces = [piece for unit in find(tiny).units for piece in unit.pieces(0)]
    files = {f"{piece.place}/{piece.folder}/{piece.name}": piece.content for piece in pieces}
    assert files == {str(path.relative_to(tmp_path / "target")): path.read_bytes() for path in (tmp_path / "target").glob("*/*/*")}
    assert len(files) == len(pieces)


def test_pieces_go_on_at_any_number(tiny: Tiny) -> None:
    for unit in find(tiny).units:
        whole = list(unit.pieces(0))
        assert len(whole) == unit.files
        assert list(unit.pieces(77)) == whole[77:]


def test_a_folder_is_recognised_by_its_names_and_what_lacks_is_told(tmp_path: Path) -> None:
    assert not fashion_mnist.looks_like(tmp_path)
    assert not fashion_mnist.looks_like(tmp_path / "missing")
    (tmp_path / SPLITS[0].labels.name).touch()
    assert fashion_mnist.looks_like(tmp_path)
    with pytest.raises(ConfigError, match=r"2 problems(.|\n)*no train-images-idx3-ubyte\.gz, t10k-images-idx3-ubyte\.gz"):
        fashion_mnist.find(tmp_path, load_prepare(["val_fraction=0.5"]))


def test_another_content_is_refused_by_the_files_name(tiny: Tiny) -> None:
    path = tiny.source / "val-labels.gz"
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(data[:-1] + bytes([data[-1] ^ 1])))
    with pytest.raises(DataError, match=rf"{path} has another content than the published one"):
        list(find(tiny).units[1].pieces(0))
