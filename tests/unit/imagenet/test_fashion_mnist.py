"""Fashion-MNIST's writer on tiny idx files: what it writes, and what it leaves alone."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from src.config import ConfigError
from src.imagenet.fashion.fashion_mnist import CLASSES, SPLITS, missing_splits, prepare
from tests.unit.imagenet.tiny import Tiny, assert_whole, write


def test_writes_every_image_under_its_label(tiny: Tiny, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write(tiny, tmp_path / "new" / "target", progress=lambda done, total: told.append((done, total)))
    assert_whole(tiny, tmp_path / "new" / "target")
    assert told == sorted(told)
    assert told[0] == (100, 320)
    assert told[-1] == (320, 320)


def test_class_folders_sort_like_the_labels_and_are_named_like_torchvisions() -> None:
    from torchvision.datasets import FashionMNIST

    assert list(CLASSES) == sorted(CLASSES)
    names = [name.lower().replace("/", "_").replace(" ", "_") for name in FashionMNIST.classes]
    assert list(CLASSES) == [f"{label}_{name}" for label, name in enumerate(names)]


def test_the_real_splits_are_those_of_the_publication() -> None:
    from torchvision.datasets import FashionMNIST

    assert [(split.name, split.images.shape, split.labels.shape, split.per_class) for split in SPLITS] == [
        ("train", (60_000, 28, 28), (60_000,), 6_000),
        ("val", (10_000, 28, 28), (10_000,), 1_000),
    ]
    assert [file.name for split in SPLITS for file in split[1:]] == [name for name, _ in FashionMNIST.resources]


def test_a_split_appears_by_one_rename(tiny: Tiny, tmp_path: Path) -> None:
    target = tmp_path / "target"
    inodes: dict[str, int] = {}

    def look(done: int, total: int) -> None:
        inodes.update({path.name: path.stat().st_ino for path in target.glob(".partial-*/*")})

    write(tiny, target, progress=look)
    assert {path.name: path.stat().st_ino for path in target.iterdir()} == inodes


@pytest.mark.usefixtures("offline")
def test_a_second_call_touches_nothing_and_needs_no_source(tiny: Tiny, tmp_path: Path) -> None:
    target = tmp_path / "target"
    write(tiny, target)
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    prepare(target, source=None, progress=lambda done, total: None, splits=tiny.splits)
    assert missing_splits(target, tiny.splits) == []
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before


def test_only_the_missing_split_is_written(tiny: Tiny, tmp_path: Path) -> None:
    target = tmp_path / "target"
    write(tiny, target)
    shutil.rmtree(target / "val")
    inode = (target / "train").stat().st_ino
    told: list[tuple[int, int]] = []
    write(tiny, target, progress=lambda done, total: told.append((done, total)))
    assert_whole(tiny, target)
    assert (target / "train").stat().st_ino == inode
    assert told[-1] == (120, 120)


def stranger(target: Path) -> None:
    (target / "holiday.jpg").touch()


def other_folders(target: Path) -> None:
    (target / "val" / "kitten").mkdir()


def one_less(target: Path) -> None:
    next((target / "train" / CLASSES[3]).iterdir()).unlink()


def one_more(target: Path) -> None:
    (target / "val" / CLASSES[9] / "extra.png").touch()


def no_folder(target: Path) -> None:
    shutil.rmtree(target / "train")
    (target / "train").touch()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (stranger, "already holds something else (holiday.jpg). Choose a new folder"),
        (other_folders, "val: holds other folders than the 10 from 0_t-shirt_top to 9_ankle_boot. Move it away"),
        (one_less, "train: 3_dress holds 19 images, not 20. Move it away"),
        (one_more, "val: 9_ankle_boot holds 13 images, not 12. Move it away"),
        (no_folder, "train: is no folder that can be read (Not a directory). Move it away"),
    ],
)
def test_what_is_not_its_own_work_is_refused_and_left_alone(
    tiny: Tiny, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    target = tmp_path / "target"
    write(tiny, target)
    change(target)
    before = sorted(target.rglob("*"))
    with pytest.raises(ConfigError) as caught:
        write(tiny, target)
    assert message in str(caught.value)
    assert sorted(target.rglob("*")) == before


def test_a_target_that_is_a_file_or_cannot_be_made_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="is no folder that can be read"):
            write(tiny, target)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="cannot be written"):
        write(tiny, tmp_path / "link")


def test_hidden_files_and_an_empty_target_are_no_hindrance(tiny: Tiny, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (target / "lost+found").mkdir(parents=True)
    (target / ".train.index.npz").touch()
    write(tiny, target)
    assert missing_splits(target, tiny.splits) == []
    assert (target / ".train.index.npz").exists()
