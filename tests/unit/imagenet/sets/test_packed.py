"""An ImageFolder in a tar: the same pieces as of the folder, the same split, the same refusals."""

import tarfile
from pathlib import Path

import pytest

from src.batch import DataError
from src.config import ConfigError
from src.config.prepare import load_prepare
from src.imagenet.layouts import imagefolder
from src.imagenet.pieces import Found
from tests.pictures import write_files
from tests.unit.imagenet.sets.small_sets import write_tar

CLASSES = {f"{name}/{number}.jpg": f"{name}{number}".encode() for name in ("cat", "dog", "eel.x") for number in range(11)}
SPLIT = {f"{split}/{path}": split.encode() + data for split in ("train", "valid") for path, data in CLASSES.items()}
NESTED = {
    **SPLIT,
    "train/cat/a/b/1.jpg": b"n",
    "train/cat/a/1.jpg": b"m",
    "test/1.jpg": b"t",
    "train/cat-2.csv": b"",
    "docs/x.txt": b"",
}
HIDDEN = {**SPLIT, "train/cat/.x.jpg": b"h", ".git/a/b.jpg": b"h", "README": b""}
TREES = {
    "classes": (CLASSES, ["val_fraction=0.2"]),
    "train only": ({f"train/{path}": data for path, data in CLASSES.items()} | {"test/cat/9.jpg": b"t"}, ["val_fraction=0.3"]),
    "splits": (SPLIT, []),
    "nested": (NESTED, []),
    "hidden": (HIDDEN, []),
    "in a folder": ({f"download/pets/{path}": data for path, data in SPLIT.items()}, []),
}


def find(source: Path, *overrides: str) -> Found:
    return imagefolder.find(source, load_prepare([f"source={source}", *overrides]))


def files_of(found: Found) -> dict[tuple[str, str, str], bytes]:
    files = {}
    for unit in found.units:
        for place, folder, name, content in unit.pieces(0):
            assert (place, folder, name) not in files
            files[place, folder, name] = content if isinstance(content, bytes) else content.read_bytes()
    return files


@pytest.mark.parametrize("suffix", ["tar", "tgz"])
@pytest.mark.parametrize("name", TREES)
def test_a_tar_gives_what_its_folder_gives(tmp_path: Path, name: str, suffix: str) -> None:
    files, overrides = TREES[name]
    archive = write_tar(tmp_path / f"pets.{suffix}", dict(sorted(files.items(), key=lambda item: item[1][::-1])))
    folder = write_files(tmp_path / "folder", files)
    assert imagefolder.looks_like(archive)
    packed, loose = find(archive, *overrides), find(folder, *overrides)
    assert files_of(packed) == files_of(loose)
    assert (sum(unit.files for unit in packed.units), sum(unit.bytes for unit in packed.units)) == (
        len(files_of(loose)),
        sum(map(len, files_of(loose).values())),
    )
    assert [note.replace(str(archive), str(folder)) for note in packed.notes] == list(loose.notes)


@pytest.mark.parametrize("start", [0, 1, 13, 32, 33])
def test_pieces_go_on_at_any_number(tmp_path: Path, start: int) -> None:
    (unit,) = find(write_tar(tmp_path / "pets.tgz", CLASSES), "val_fraction=0.2").units
    whole = list(unit.pieces(0))
    assert len(whole) == 33
    assert list(unit.pieces(start)) == whole[start:]


REFUSED = {
    "no val": (CLASSES, [], "pets.tgz has no validation split. Add val_fraction=0.1"),
    "an empty image": ({**SPLIT, "train/cat/0.jpg": b""}, [], "pets.tgz/train/cat/0.jpg (0 bytes)"),
    "an odd name": ({**SPLIT, "train/cat/a\nb.jpg": b"x"}, [], "its name holds control characters"),
    "equal names": ({**SPLIT, "train/cat/a/1.jpg": b"x", "train/cat/a__1.jpg": b"y"}, [], "would have the name of"),
    "a class in train only": ({**SPLIT, "train/fox/1.jpg": b"x"}, [], "val: lacks 1 classes that train has: fox."),
    "a loose image": ({**SPLIT, "train/1.jpg": b"x"}, [], "pets.tgz/train: holds images itself"),
    "no image": ({"a/b.txt": b"x"}, [], "holds no images"),
    "nothing": ({}, [], "holds no images"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_clear_is_refused(tmp_path: Path, case: str) -> None:
    files, overrides, message = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        find(write_tar(tmp_path / "pets.tgz", files), *overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("member", "kind", "message"),
    [
        ("../1.jpg", tarfile.REGTYPE, r"\.\./1\.jpg"),
        ("/train/cat/1.jpg", tarfile.REGTYPE, "the path '/train/cat/1.jpg'"),
        ("train/cat/l.jpg", tarfile.SYMTYPE, "symbolic link"),
        ("train/cat/l.jpg", tarfile.LNKTYPE, "hard link"),
        ("train/cat/l.jpg", tarfile.CHRTYPE, "device"),
        ("train/cat/1.jpg", tarfile.REGTYPE, "'train/cat/1.jpg' twice"),
    ],
)
def test_hostile_members_are_refused_before_anything_is_made(tmp_path: Path, member: str, kind: bytes, message: str) -> None:
    info = tarfile.TarInfo(member)
    info.type, info.linkname = kind, "/etc/passwd"
    archive = write_tar(tmp_path / "pets.tgz", SPLIT, extra=[info])
    with pytest.raises(DataError, match=message) as caught:
        find(archive)
    assert str(archive) in str(caught.value)


def test_a_cut_archive_and_one_that_changed_are_refused(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "pets.tar", SPLIT)
    found = find(archive)
    for files, message in (
        (dict(list(SPLIT.items())[:-1]), "became shorter"),
        ({**SPLIT, "train/cat/new.jpg": b"x"}, "became longer"),
        (dict(reversed(SPLIT.items())), "changed while it was read"),
    ):
        write_tar(archive, files)
        with pytest.raises(DataError, match=message) as caught:
            files_of(found)
        assert str(archive) in str(caught.value)
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(DataError, match="truncated"):
        find(archive)


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b", b"PK\x03\x04", b"x" * 2000])
def test_other_files_do_not_look_like_it(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tgz").write_bytes(data)
    assert not imagefolder.looks_like(tmp_path / "x.tgz")
