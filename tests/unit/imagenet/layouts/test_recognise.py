"""What is recognised, what is not, and what the user is told then."""

import os
import socket
from pathlib import Path

import pytest

from src.config import ConfigError
from src.imagenet.layouts.recognise import LAYOUTS, modules_of
from tests.scale_models import LAYOUTS as WRITERS
from tests.scale_models import scale_model, write_torrent
from tests.unit.imagenet.layouts.run import found_in


@pytest.mark.parametrize("name", WRITERS)
def test_every_layout_is_recognised_by_exactly_the_one_it_is(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path, scale_model(45))
    found = found_in(tmp_path)
    assert found.layout == next(layout for layout in ("kaggle", "folders", "torrent", "huggingface", name) if layout in name)
    assert not any("looks like" in note for note in found.notes)


def test_nothing_known_is_met_with_what_is_there_and_what_each_layout_needs(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"file{number:02}.bin").write_bytes(b"")
    (tmp_path / ".hidden").write_bytes(b"")
    with pytest.raises(ConfigError) as caught:
        found_in(tmp_path)
    text = str(caught.value)
    assert "There are file00.bin, file01.bin, " in text and "(12 names)" in text and ".hidden" not in text
    for layout, needs in LAYOUTS.items():
        assert f"{layout}: {needs}" in text


@pytest.mark.parametrize(
    ("make", "words"), [("nothing", "is not there"), ("empty", "There is nothing"), ("file", "There is one file of 3 bytes")]
)
def test_no_source_an_empty_one_or_a_strange_file_is_said(make: str, words: str, tmp_path: Path) -> None:
    if make == "empty":
        (tmp_path / "x").mkdir()
    elif make == "file":
        (tmp_path / "x").write_bytes(b"abc")
    with pytest.raises(ConfigError, match=words):
        found_in(tmp_path / "x")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_was_typed_says_what_it_lacks_whatever_the_source_is(layout: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    for source in (
        [tmp_path] if layout in ("imagenette", "cifar10") else [tmp_path / "file", tmp_path]
    ):  # whose archives are not opened yet
        with pytest.raises(ConfigError):
            found_in(source, f"layout={layout}")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_looking_raises_nothing_and_opens_nothing_odd(layout: str, tmp_path: Path) -> None:
    """Links to nothing and in circles, pipes, sockets, names that are no text, folders named like archives, files like folders."""
    (tmp_path / "nowhere").symlink_to("nothing")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "self").symlink_to(".")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / os.fsdecode(b"\xff\xfe.tar")).write_bytes(b"")
    (tmp_path / "train").write_bytes(b"")
    (tmp_path / "val").mkdir()
    (tmp_path / "val/ILSVRC2012_val_00000001.JPEG").symlink_to("nothing")
    (tmp_path / "ILSVRC").symlink_to("circle")
    for name in (
        "ILSVRC2017_CLS-LOC.tar.gz",
        "imagenet-object-localization-challenge.zip",
        "cifar-10-python.tar.gz",
        "imagenette2.tgz",
        "train-00000-of-00001.parquet",
        "train-images-idx3-ubyte.gz",
    ):
        (tmp_path / name).mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(tmp_path)  # a socket's path has at most 108 bytes
        try:
            listening.bind("socket")
        finally:
            os.chdir(here)
        for source in (tmp_path, *sorted(tmp_path.iterdir()), tmp_path / "missing", tmp_path / "train" / "below a file"):
            for module in modules_of(layout):  # type: ignore[arg-type]
                assert module.looks_like(source) in (True, False)


def test_two_archives_of_the_same_are_not_chosen_between(tmp_path: Path) -> None:
    write_torrent(tmp_path, scale_model(12))
    write_torrent(tmp_path, scale_model(12), compressed=False)
    with pytest.raises(ConfigError, match="name one of them"):
        found_in(tmp_path)
