"""The last gate: no name, link or kind of file passes it that could stand outside of the preparation's own folders."""

import os
import zlib
from pathlib import Path

import pytest

from src.batch import DataError
from src.config import ConfigError
from src.imagenet.manifest import LINKED, line_of
from src.imagenet.pieces import MOST_BYTES, Piece
from src.imagenet.writing import MODIFIED_NS, DuplicateError, Link, Writer
from tests.unit.imagenet.made_up import image

BAD_NAMES = ["..", ".", "", ".hidden", "a/b", "/etc/x", "a\0b", "a\nb", "a\tb", "\x7f", "x" * 256, "é" * 128, "../../x"]


def writer(target: Path, link: Link = "auto") -> Writer:
    (target / ".prepare").mkdir(parents=True, exist_ok=True)
    return Writer(target, link)


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_none_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    target = tmp_path / "a" / "b"
    pieces = [Piece("train", "n1", name, b"x"), Piece("test", "", name, b"x")]
    if name != "a/b":  # side files have paths
        pieces.append(Piece("side", "", f"a/{name}/b", b"x"))
    for piece in pieces:
        with pytest.raises(DataError, match=r"is no name for a file here"):
            writer(target).write(piece)
    if name:  # without a folder it is a flat image
        with pytest.raises(DataError, match=r"is no name for a folder here"):
            writer(target).write(Piece("train", name, "x.JPEG", b"x"))
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_odd_but_honest_names_pass(tmp_path: Path) -> None:
    names = ["x" * 255, "é" * 127, "a b.JPEG", "-rf", "ä\udcff.jpg", "~", "a..b"]
    for name in names:
        writer(tmp_path).write(Piece("val", "a class", name, b"x"))
    assert set(os.listdir(tmp_path / ".prepare/tree/val/a class")) == set(names)


@pytest.mark.parametrize("place", ["tree", "tree/train", "tree/train/n1", "side"])
def test_a_planted_link_in_place_of_a_folder_is_refused(tmp_path: Path, place: str) -> None:
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    made = writer(target)
    link = target / ".prepare" / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    with pytest.raises(DataError, match=r"is no folder, though only preparations write there"):
        made.write(image("train/n1/a.JPEG") if place != "side" else Piece("side", "", "a.xml", b"x"))
    assert everything(outside) == set()


def test_a_planted_link_in_place_of_a_file_is_never_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    made = writer(tmp_path / "target")
    made.write(image("train/n1/a.JPEG"))
    (tmp_path / "target/.prepare/tree/train/n1/b.JPEG").symlink_to(victim)
    (tmp_path / "target/.prepare/tree/train/n1/c.JPEG").symlink_to(tmp_path / "new")
    for name in ("b", "c"):
        with pytest.raises(DuplicateError):
            made.write(image(f"train/n1/{name}.JPEG"))
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "new").exists()


def test_a_file_that_is_too_large_for_an_image_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "large.JPEG"
    with open(large, "wb") as file:
        file.truncate(MOST_BYTES + 1)
    for content in (bytes(MOST_BYTES + 1), large):
        with pytest.raises(DataError, match=r"has 67,108,865 bytes, more than any image"):
            writer(tmp_path / "target").write(image("train/n1/a.JPEG", content))
    assert not any(path.is_file() for path in (tmp_path / "target").rglob("*"))


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "dangling"])
def test_what_is_no_plain_file_is_not_taken_over(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "x.JPEG"
    match kind:
        case "folder":
            source.mkdir()
        case "fifo":
            os.mkfifo(source)
        case "device":
            source.symlink_to("/dev/zero")
        case _:
            source.symlink_to("nowhere")
    with pytest.raises((DataError, FileNotFoundError)):
        writer(tmp_path / "target").write(image("train/n1/a.JPEG", source))


@pytest.mark.parametrize("link", ["auto", "hard", "copy"])
def test_a_sources_file_is_linked_or_copied_and_never_changed(tmp_path: Path, link: Link) -> None:
    source, alias = tmp_path / "x.JPEG", tmp_path / "alias.JPEG"
    source.write_bytes(b"pixels")
    os.utime(source, ns=(1, 5 * 10**9))
    alias.symlink_to(source.name)
    made = writer(tmp_path / "target", link)
    rows = [made.write(image(f"train/n1/{name}.JPEG", path))[0] for name, path in (("a", source), ("b", alias))]
    for name in ("a", "b"):
        written = tmp_path / f"target/.prepare/tree/train/n1/{name}.JPEG"
        assert written.read_bytes() == b"pixels"
        assert not written.is_symlink()
        assert (written.stat().st_ino == source.stat().st_ino) == (link != "copy")
        assert written.stat().st_mtime_ns == (MODIFIED_NS if link == "copy" else 5 * 10**9)
    assert rows[0] == line_of("train/n1/a.JPEG", 6, zlib.crc32(b"pixels") if link == "copy" else LINKED)
    assert (source.read_bytes(), source.stat().st_mtime_ns) == (b"pixels", 5 * 10**9)


@pytest.mark.skipif(
    not Path("/dev/shm").is_dir() or os.stat("/dev/shm").st_dev == os.stat("/tmp").st_dev, reason="no second file system here"
)
def test_across_file_systems_auto_copies_and_hard_refuses(tmp_path: Path) -> None:
    shm = Path("/dev/shm") / f"prepare-{os.getpid()}"
    if os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("the tests' folder lies in /dev/shm")
    shm.write_bytes(b"pixels")
    try:
        writer(tmp_path).write(image("train/n1/a.JPEG", shm))
        assert (tmp_path / ".prepare/tree/train/n1/a.JPEG").read_bytes() == b"pixels"
        with pytest.raises(ConfigError, match=r"link = 'hard': .* cannot be linked .*Type link=auto or link=copy"):
            writer(tmp_path, "hard").write(image("train/n1/b.JPEG", shm))
    finally:
        shm.unlink()


def test_a_split_that_stands_in_the_target_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    with pytest.raises(ConfigError, match=r"val: stands in .* already, and is never written over"):
        writer(tmp_path).write(image("val/n1/a.JPEG"))
