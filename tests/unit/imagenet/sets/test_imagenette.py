"""Imagenette and Imagewoof: archive and tree give the same; what is not theirs is refused by name."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from src.batch import DataError
from src.config import ConfigError
from src.config.prepare import load_prepare
from src.imagenet.layouts import cifar10, imagefolder, imagenette
from src.imagenet.layouts.imagenette import IMAGENETTE, IMAGEWOOF
from src.imagenet.pieces import Found, Piece
from src.imagenet.wnids import imagenet_wnids
from tests.pictures import write_files
from tests.unit.imagenet.sets.small_sets import imagenette_archive, imagenette_files, write_tar

ARCHIVE = "imagenette2-160.tgz"


def find(source: Path, *overrides: str) -> Found:
    return imagenette.find(source, load_prepare([f"source={source}", *overrides]))


def files_of(found: Found) -> dict[str, bytes]:
    files = {}
    for unit in found.units:
        for piece in unit.pieces(0):
            name = f"{piece.place}/{piece.folder}/{piece.name}"
            assert name not in files
            files[name] = piece.content if isinstance(piece.content, bytes) else piece.content.read_bytes()
    return files


@pytest.mark.parametrize("wnids", [IMAGENETTE, IMAGEWOOF])
def test_archive_and_tree_give_the_same_files_under_their_own_names(tmp_path: Path, wnids: frozenset[str]) -> None:
    files = imagenette_files(wnids=sorted(wnids))
    name = ARCHIVE if wnids is IMAGENETTE else "imagewoof2-320.tgz"
    archive = imagenette_archive(tmp_path / name, files)
    folder = write_files(tmp_path / "tree" / "imagenette2-160", {**files, "noisy_imagenette.csv": b""})
    for source in (archive, tmp_path, folder, folder.parent):
        assert imagenette.looks_like(source)
        found = find(source)
        assert found.layout == "imagenette"
        assert files_of(found) == files


def test_the_classes_are_imagenets() -> None:
    from torchvision.datasets import Imagenette

    assert set(Imagenette._WNID_TO_CLASS) == IMAGENETTE
    assert len(IMAGEWOOF) == 10
    assert set(imagenet_wnids()) > IMAGENETTE | IMAGEWOOF
    published = {url.rpartition("/")[2]: md5 for url, md5 in Imagenette._ARCHIVES.values()}
    assert {name: md5 for name, (md5, _) in imagenette.PUBLISHED.items()} == published


def test_published_sums_belong_to_the_published_names(tmp_path: Path) -> None:
    (archive,) = find(imagenette_archive(tmp_path / ARCHIVE, imagenette_files())).archives
    assert archive == (tmp_path / ARCHIVE, "e793b78cc4c9e9a4ccc0c1155377a412", 99_003_388)
    found = find(imagenette_archive(tmp_path / "w" / "imagewoof2.tgz", imagenette_files(wnids=sorted(IMAGEWOOF))))
    assert found.archives[0].md5 is None
    assert "no published sum of imagewoof2.tgz is known" in found.notes[0]


@pytest.mark.parametrize("start", [0, 1, 17, 49, 50])
def test_pieces_go_on_at_any_number(tmp_path: Path, start: int) -> None:
    (unit,) = find(imagenette_archive(tmp_path / ARCHIVE, imagenette_files())).units
    whole: list[Piece] = list(unit.pieces(0))
    assert len(whole) == 50
    assert list(unit.pieces(start)) == whole[start:]


def without(word: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda files: {name: data for name, data in files.items() if word not in name}


def plus(name: str, data: bytes = b"x") -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda files: {**files, name: data}


BROKEN: dict[str, tuple[Callable[[dict[str, bytes]], dict[str, bytes]], str]] = {
    "a class less": (without("train/n03000684"), "lacks train/n03000684"),
    "no val": (without("val/"), "lacks val/n01440764, val/n02102040"),
    "a foreign class": (
        plus("train/n01443537/n01443537_1.JPEG"),
        "'imagenette2-160/train/n01443537/n01443537_1.JPEG', which is no image",
    ),
    "a class of the other set": (plus(f"train/{min(IMAGEWOOF)}/x.JPEG"), "lacks"),
    "an image elsewhere": (plus("extra/n01440764/x.JPEG"), "which is no image of Imagenette by its path"),
    "an image too deep": (plus("train/n01440764/a/x.JPEG"), "which is no image of Imagenette by its path"),
    "an odd name": (plus("train/n01440764/a b.JPEG"), "which is no image of Imagenette by its path"),
    "an empty image": (plus("train/n01440764/x.JPEG", b""), "of 0 bytes: that is no image"),
    "nothing": (lambda files: {}, "lacks train/n01440764"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_archives_that_are_not_the_published_ones_are_refused(tmp_path: Path, case: str) -> None:
    change, message = BROKEN[case]
    archive = imagenette_archive(tmp_path / ARCHIVE, change(imagenette_files()))
    with pytest.raises(DataError) as caught:
        files_of(find(archive))
    assert str(caught.value).startswith(str(archive))
    assert message in str(caught.value)


def test_members_met_twice_and_links_are_refused(tmp_path: Path) -> None:
    files = {f"a/{name}": data for name, data in imagenette_files().items()}
    first = next(iter(files))
    for name, kind, message in ((f"b/{first[2:]}", tarfile.REGTYPE, "twice|0 bytes"), (first, tarfile.SYMTYPE, "symbolic link")):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        with pytest.raises(DataError, match=message):
            files_of(find(write_tar(tmp_path / ARCHIVE, files, extra=[info])))
    again = {**files, f"b/{first[2:]}": files[first]}
    with pytest.raises(DataError, match="twice"):
        files_of(find(write_tar(tmp_path / ARCHIVE, again)))


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    archive = imagenette_archive(tmp_path / ARCHIVE, imagenette_files())
    archive.write_bytes(archive.read_bytes()[:-5000])
    with pytest.raises(DataError, match=f"{archive} is truncated"):
        files_of(find(archive))


def test_hidden_files_and_the_csv_are_passed_over(tmp_path: Path) -> None:
    files = imagenette_files()
    archive = imagenette_archive(tmp_path / ARCHIVE, {**files, ".DS_Store": b"", "train/._n01440764.JPEG": b"", "train/a.csv": b""})
    assert files_of(find(archive)) == files


def test_two_archives_are_not_chosen_from(tmp_path: Path) -> None:
    for name in (ARCHIVE, "imagenette2-320.tgz"):
        imagenette_archive(tmp_path / name, imagenette_files())
    with pytest.raises(ConfigError, match=r"holds imagenette2-160\.tgz, imagenette2-320\.tgz\. Name one of them"):
        find(tmp_path)


def test_a_tree_that_lacks_classes_is_refused_if_it_shall_be_imagenette_and_else_an_imagefolder(tmp_path: Path) -> None:
    write_files(tmp_path, without("n03000684")(imagenette_files()))
    assert not imagenette.looks_like(tmp_path)
    assert imagefolder.looks_like(tmp_path)
    assert not cifar10.looks_like(tmp_path)
    with pytest.raises(ConfigError) as caught:
        find(tmp_path)
    assert str(caught.value).startswith("2 problems in the source:")
    assert "lacks n03000684" in str(caught.value)
    with pytest.raises(ConfigError, match="has its validation split"):
        find(tmp_path, "val_fraction=0.1")
