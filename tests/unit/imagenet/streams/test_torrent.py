"""The tar.gz of Academic Torrents: one pass, from any piece on, in bounded memory."""

import gzip
import io
import random
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.batch import DataError
from src.config import ConfigError
from src.imagenet.layouts.torrent import find, looks_like
from src.imagenet.streams.tar_stream import FileTar, gzipped_pieces
from tests.scale_models import scale_model, write_torrent
from tests.security.test_hostile_data import Memory
from tests.unit.imagenet.layouts.run import order, tree_of

MODEL = scale_model(12)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("csv", [True, False])
def test_the_tree_is_the_models_with_classes_from_csv_or_annotations(tmp_path: Path, compressed: bool, csv: bool) -> None:
    source = write_torrent(tmp_path / "in", MODEL, csv=csv, compressed=compressed)
    assert looks_like(source) and looks_like(next(source.iterdir()))
    found = find(source, order())
    assert tree_of(found, tmp_path / "side") == MODEL.files
    assert found.listed(tmp_path / "side") == set(MODEL.files)
    kept = {path.name for path in (tmp_path / "side/ILSVRC/Annotations").rglob("*.xml")}
    assert kept and all(name.startswith("ILSVRC2012_val_") for name in kept), "not those of train, half a million"


@pytest.mark.parametrize("compressed", [True, False])
def test_from_any_piece_on_the_rest_is_the_same(tmp_path: Path, compressed: bool) -> None:
    unit = find(write_torrent(tmp_path, MODEL, compressed=compressed), order()).units[0]
    whole = list(unit.pieces(0))
    for start in (1, 7, len(whole) - 1, len(whole), len(whole) + 5):
        assert list(unit.pieces(start)) == whole[start:]


def test_a_tree_below_no_folder_and_below_a_dot_is_the_same(tmp_path: Path) -> None:
    path = write_torrent(tmp_path, MODEL, compressed=False) / "ILSVRC2017_CLS-LOC.tar"
    whole = list(FileTar(path, "x", 1, 1).pieces(0))
    memory = io.BytesIO()
    with tarfile.open(path) as archive, tarfile.open(fileobj=memory, mode="w", format=tarfile.PAX_FORMAT) as other:
        for member in archive:
            member.name = "./" + member.name.removeprefix("ILSVRC/")
            other.addfile(member, archive.extractfile(member))
    assert list(gzipped_pieces("x", iter([gzip.compress(memory.getvalue())]), 0)) == whole


def test_what_is_cut_off_is_named_with_its_byte_wherever_it_is_cut(tmp_path: Path) -> None:
    path = write_torrent(tmp_path, scale_model(2, test=1)) / "ILSVRC2017_CLS-LOC.tar.gz"
    packed = path.read_bytes()
    rng = random.Random(0)
    for length in [*rng.sample(range(2, len(packed)), 60), len(packed) - 1, len(packed) - 8, len(packed) - 9]:
        path.write_bytes(packed[:length])
        with pytest.raises(DataError, match=rf"{path} is truncated: .* {length:,} bytes"):
            list(FileTar(path, path.name, 1, 1).pieces(0))
    tar = gzip.decompress(packed).rstrip(b"\0")
    for length in rng.sample(range(1, len(tar)), 60):
        with pytest.raises(DataError, match=r"x is truncated: (it|ILSVRC/)"):
            list(gzipped_pieces("x", iter([gzip.compress(tar[:length], 1)]), 0))


def test_a_wrong_sum_is_an_error_though_every_image_was_handed_out(tmp_path: Path) -> None:
    packed = bytearray((write_torrent(tmp_path, MODEL) / "ILSVRC2017_CLS-LOC.tar.gz").read_bytes())
    packed[-6] ^= 1
    count = 0
    with pytest.raises(DataError, match="its sum is wrong"):
        for _ in gzipped_pieces("x", (bytes(packed[at : at + 500]) for at in range(0, len(packed), 500)), 0):
            count += 1
    assert count > len(MODEL.files)


def test_data_behind_the_end_mark_are_refused(tmp_path: Path) -> None:
    tar = gzip.decompress((write_torrent(tmp_path, MODEL) / "ILSVRC2017_CLS-LOC.tar.gz").read_bytes())
    for more in (tar, bytes(2**20) + b"x", bytes(2**21)):
        with pytest.raises(DataError, match=r"behind (its|the) end mark"):
            list(gzipped_pieces("x", iter([gzip.compress(tar + more, 1)]), 0))


def test_what_is_neither_gzip_nor_tar_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "ILSVRC2017_CLS-LOC.tar.gz").write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(ConfigError, match=r"ILSVRC2017_CLS-LOC\.tar\.gz.*is neither gzip nor tar"):
        find(tmp_path, order())
    (tmp_path / "ILSVRC2015_CLS-LOC.tar.gz").write_bytes(b"")
    with pytest.raises(ConfigError, match="name one of them"):
        find(tmp_path, order())


def stream(images: int, image: bytes) -> Iterator[bytes]:
    """A tar.gz of many images, made while it is read."""
    packer = zlib.compressobj(1, wbits=31)
    for number in range(images):
        member = tarfile.TarInfo(f"ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_{number}.JPEG")
        member.size = len(image)
        yield packer.compress(member.tobuf(tarfile.GNU_FORMAT) + image + bytes(-len(image) % 512))
    yield packer.compress(bytes(10_240)) + packer.flush()


def read_a_stream(images: int) -> int:
    """Read it; return the bytes of its images."""
    memory = Memory()
    block = random.Random(0).randbytes(2**13)
    read = sum(
        len(piece.content) for piece in gzipped_pieces("x", stream(images, block * 16), 0) if isinstance(piece.content, bytes)
    )
    assert memory.peak() < 100 * 2**20
    return read


def test_memory_does_not_grow_with_the_archive() -> None:
    assert read_a_stream(4_000) == 4_000 * 2**17


@pytest.mark.long
def test_memory_does_not_grow_with_an_archive_of_12_gb() -> None:
    assert read_a_stream(90_000) == 90_000 * 2**17
