"""Zips: the same members and bytes as Python's zipfile reads, and what no two readers should differ over is refused by name."""

import gzip
import io
import os
import random
import zipfile
from pathlib import Path

import pytest

from src.batch import DataError
from src.config import ConfigError
from src.imagenet.layouts.zipped import find, looks_like
from src.imagenet.streams.zip_directory import entries
from src.imagenet.streams.zip_members import entry_at, member_blocks, read_member
from tests.scale_models import kaggle_files, scale_model, tar_of, write_kaggle_zip
from tests.security.test_hostile_data import Memory
from tests.unit.imagenet.layouts.run import order, tree_of
from tests.unit.imagenet.streams.zips import DEVICE, LINK, Member, zip_of

MODEL = scale_model(12)
NAME = "imagenet-object-localization-challenge.zip"
IMAGE = b"ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_%d.JPEG"
DATA = random.Random(0).randbytes(5_000)


def contents(path: Path) -> dict[str, bytes]:
    """Read all members, in both ways."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found = {}
        for entry in list(entries(descriptor)):
            assert entry_at(descriptor, entry.at) == entry
            if not entry.path.endswith("/"):
                found[entry.path] = read_member(descriptor, entry)
                assert b"".join(member_blocks(descriptor, entry)) == found[entry.path]
        return found
    finally:
        os.close(descriptor)


def written(path: Path, *members: Member, zip64: bool = False) -> Path:
    path.write_bytes(zip_of(members, zip64=zip64))
    return path


@pytest.mark.parametrize("seed", range(8))
def test_members_are_those_that_zipfile_wrote(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    files = {}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.comment = rng.randbytes(rng.choice((0, 5, 60_000)))
        for number in range(rng.choice((0, 1, 40, 700))):
            name = f"a/{'ü' * rng.randint(0, 3)}{number}/{'b' * rng.randint(1, 90)}"
            files[name] = rng.choice((b"", rng.randbytes(rng.randint(1, 9_000)), b"x" * rng.randint(1, 90_000)))
            info = zipfile.ZipInfo(name)
            info.compress_type = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            info.comment, info.extra = rng.randbytes(rng.choice((0, 9))), rng.choice((b"", b"\x99\x99\4\0abcd"))
            with archive.open(info, "w", force_zip64=rng.random() < 0.3) as file:
                file.write(files[name])
        archive.mkdir("folder")
    assert contents(tmp_path / "a.zip") == files


def test_what_is_streamed_into_a_zip_has_its_sizes_behind_it_and_is_read(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.data += bytes(data)  # type: ignore[call-overload]
            return len(bytes(data))  # type: ignore[call-overload]

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", DATA)
        archive.writestr("b", b"")
    (tmp_path / "a.zip").write_bytes(pipe.data)
    assert contents(tmp_path / "a.zip") == {"a": DATA, "b": b""}


@pytest.mark.parametrize("zip64", [True, False])
def test_large_numbers_are_read_from_their_own_field(tmp_path: Path, zip64: bool) -> None:
    path = written(tmp_path / "a.zip", Member(b"a", DATA, zip64=True), Member(b"b", b"b", 0, zip64=True, comment=b"c"), zip64=zip64)
    assert contents(path) == {"a": DATA, "b": b"b"}


def test_a_directory_longer_than_a_block_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.imagenet.streams.zip_directory._BLOCK", 300_000)
    path = written(tmp_path / "a.zip", *[Member(b"%d" % n, b"", 0, comment=b"c" * 60_000) for n in range(30)])
    assert list(contents(path)) == [str(n) for n in range(30)]


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (Member(b"../evil", b""), r"holds the path '\.\./evil'"),
        (Member(b"a/../../evil", b""), r"holds the path"),
        (Member(b"/etc/evil", b""), r"holds the path '/etc/evil'"),
        (Member(b"C:evil", b""), r"holds the path 'C:evil'"),
        (Member(b"..\\evil", b""), r"holds the path"),
        (Member(b"a\0b", b""), r"holds the path 'a\\x00b'"),
        (Member(b"", b""), r"holds the path ''"),
        (Member(b"link", b"/etc/passwd", mode=LINK), "holds link, which is a symbolic link"),
        (Member(b"disk", b"", mode=DEVICE), "holds disk, which is no file"),
        (Member(b"secret", DATA, flags=1), "holds secret, which is encrypted"),
        (Member(b"secret", DATA, flags=0x2000), "holds secret, which is encrypted"),
        (Member(b"odd", DATA, method=12), "holds odd, compressed with bzip2"),
        (Member(b"lie", b"a" * 500, size=400), "holds lie, which has more bytes than the 400"),
        (Member(b"lie", b"a" * 500, size=2**31 - 1), "holds lie, which has another number of bytes than the 2,147,483,647"),
        (Member(b"lie", b"a" * 500, 0, size=400), "holds lie, which is stored as it is in 500 bytes and should have 400"),
        (Member(b"lie", b"a" * 500, stored=5), "holds lie, which has fewer bytes"),
        (Member(b"sum", DATA, crc=1), r"holds sum, whose sum is wrong \(CRC-32 [0-9a-f]{8}, not 00000001\)"),
        (Member(b"sum", DATA, 0, crc=1), "holds sum, whose sum is wrong"),
        (Member(b"far", DATA, at=10**9), "far should end at byte"),
        (Member(b"near", DATA, stored=100, at=1), "tells of near at byte 1, where no member stands"),
        (Member(b"two", DATA, local_name=b"one"), "tells of two at byte .*, where one stands"),
        (Member(b"wide", DATA, size=0xFFFFFFFF), "wide lacks its zip64 sizes"),
    ],
    ids=lambda value: value.name.decode() + str(value.flags or value.method) if isinstance(value, Member) else "",
)
def test_a_hostile_member_is_refused_by_name(tmp_path: Path, member: Member, words: str) -> None:
    path = written(tmp_path / "a.zip", member) if member.at == 1 else written(tmp_path / "a.zip", Member(b"first", b"1"), member)
    with pytest.raises(DataError, match=words):
        contents(path)


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    """Fifield's bomb (2019): many members of one kernel, be it by one header or by headers within data."""
    once = Member(b"0", bytes(10**6))
    with pytest.raises(DataError, match="is a bomb or damaged: the members at bytes 0 and 0 overlap"):
        contents(written(tmp_path / "a.zip", once, *[Member(b"0", b"", crc=9, size=10**6, stored=900, at=0) for _ in range(5)]))
    kernel = zip_of([Member(b"inner", bytes(10**6))])[: 30 + 5 + 990]
    quoted = Member(b"outer", kernel, 0)
    inside = Member(b"inner", b"", size=10**6, stored=950, at=30 + 5)
    with pytest.raises(DataError, match="the members at bytes 0 and 35 overlap"):
        contents(written(tmp_path / "b.zip", quoted, inside))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is no zip"),
        (b"x" * 100_000, "is truncated: it does not end with a zip's directory"),
        (zip_of([Member(b"a", DATA)])[:-1], "is truncated"),
        (zip_of([Member(b"a", DATA)])[: len(DATA)], "is truncated"),
        (zip_of([Member(b"a", DATA)]) + b"tail", "is truncated"),
        (b"head" + zip_of([Member(b"a", DATA)]), "its directory should lie at bytes"),
        (zip_of([Member(b"a", DATA)], gap=b"gap"), "its directory should lie at bytes"),
        (zip_of([Member(b"a", DATA)], count=2), "its directory has 1 entries, and its end tells of 2"),
        (zip_of([Member(b"a", DATA), Member(b"b", b"")], count=1), "entries, and its end tells of 1"),
        (zip_of([Member(b"a", DATA)], count=2**40, zip64=True), "more than any such archive has"),
    ],
    ids=["empty", "none", "short by one", "cut", "tail", "head", "gap", "one too few", "one too many", "a trillion"],
)
def test_a_directory_that_does_not_fit_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match=words):
        contents(tmp_path / "a.zip")


def test_a_members_bomb_makes_no_more_than_its_directory_tells_of(tmp_path: Path) -> None:
    path = written(tmp_path / "a.zip", Member(b"a", bytes(2**27), size=10**6))
    memory = Memory()
    with pytest.raises(DataError, match="has more bytes than the 1,000,000"):
        contents(path)
    assert memory.peak() < 20 * 2**20


def test_kaggles_zip_gives_the_models_tree_by_class_folders(tmp_path: Path) -> None:
    source = write_kaggle_zip(tmp_path / "in", MODEL)
    assert looks_like(source) and looks_like(source / NAME)
    found = find(source, order())
    assert tree_of(found, tmp_path / "side") == MODEL.files
    assert found.listed(tmp_path / "side") == set(MODEL.files) and found.words(tmp_path / "side") == MODEL.words
    assert next(unit.name.partition("/")[2] for unit in found.units) == "side"
    assert {unit.name.partition("/")[2] for unit in found.units} == {"side", "val/0", "test/0", *MODEL.wnids}
    for unit in found.units:
        whole = list(unit.pieces(0))
        assert len(whole) == unit.files
        assert list(unit.pieces(1)) == whole[1:] and list(unit.pieces(len(whole))) == []


def test_flat_images_are_cut_into_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.imagenet.layouts.zipped._RUN", 4)
    found = find(write_kaggle_zip(tmp_path / "in", MODEL), order())
    runs = [unit for unit in found.units if "/val" in unit.name]
    assert [unit.files for unit in runs][:-1] == [4] * (len(runs) - 1) and len({unit.name for unit in runs}) == len(runs) > 2
    assert tree_of(found, tmp_path / "side") == MODEL.files


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_older_zip_with_a_tar_gz_in_it_is_streamed(tmp_path: Path, method: int) -> None:
    files = kaggle_files(MODEL)
    tables = {name: files.pop(name) for name in list(files) if "/" not in name}
    with zipfile.ZipFile(tmp_path / NAME, "w", method) as archive:
        archive.writestr("imagenet_object_localization_patched2019.tar.gz", gzip.compress(tar_of(files), 1))
        for name, data in tables.items():
            archive.writestr(name, data)
    found = find(tmp_path / NAME, order())
    assert tree_of(found, tmp_path / "side") == MODEL.files
    assert [unit.name.partition("/")[2] for unit in found.units] == ["side", "imagenet_object_localization_patched2019.tar.gz"]


def test_an_image_twice_and_a_stranger_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    image = Member(IMAGE % 1, DATA)
    for bad, words in (
        (image, "n01440764/n01440764_1.JPEG twice"),
        (Member(IMAGE.replace(b"/n01440764_", b"/n01443537_") % 1, DATA), "by its name belongs elsewhere"),
        (Member(IMAGE % 2, b""), "that is no image"),
        (Member(IMAGE % 2, DATA, size=2**31), "that is no image"),
        (Member(b"ILSVRC/Data/CLS-LOC/train/a.tar", DATA), "no image of ILSVRC2012 by its name"),
    ):
        path = written(tmp_path / NAME, image, bad)
        with pytest.raises(ConfigError, match=rf"{path}.*{words}"):
            find(path, order())
    with pytest.raises(ConfigError, match="holds no image of ILSVRC/Data"):
        find(written(tmp_path / NAME, Member(b"LOC_val_solution.csv", DATA)), order())


def test_a_directory_of_60000_members_is_read_in_little_memory(tmp_path: Path) -> None:
    """Kaggle's has 2,030,000; zipfile's objects for them take 1.5 GB."""
    name = b"ILSVRC/Annotations/CLS-LOC/train/n01440764/n01440764_%d.xml"
    written(tmp_path / "a.zip", *[Member(name % number, b"", 0) for number in range(60_000)], zip64=True)
    descriptor = os.open(tmp_path / "a.zip", os.O_RDONLY)
    memory = Memory()
    assert sum(1 for _ in entries(descriptor)) == 60_000
    assert memory.peak() < 15 * 2**20
    os.close(descriptor)
