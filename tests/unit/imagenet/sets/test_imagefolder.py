"""Any ImageFolder as a source: what is understood, what is left out, and what is refused by name."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from loguru import logger

from src.config import ConfigError
from src.config.prepare import load_prepare
from src.imagenet.layouts import imagefolder
from src.imagenet.pieces import Found
from src.imagenet.sets.split import val_count


def tree(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return root


def find(root: Path, *overrides: str) -> Found:
    return imagefolder.find(root, load_prepare([f"source={root}", *overrides]))


def placed(found: Found) -> dict[str, str]:
    """Return path in the target to the file it comes from."""
    pieces = [piece for unit in found.units for piece in unit.pieces(0)]
    paths = {"/".join(filter(None, (piece.place, piece.folder, piece.name))): str(piece.content) for piece in pieces}
    assert len(paths) == len(pieces)
    return paths


def problems_of(root: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        find(root, *overrides)
    return str(caught.value)


CLASSES = [f"{name}/{number}.jpg" for name in ("cat", "dog") for number in range(10)]
SPLIT = ["train/cat/1.jpg", "train/dog/2.JPEG", "val/cat/3.png", "val/dog/4.webp"]


def test_a_split_tree_keeps_its_splits_and_names(tmp_path: Path) -> None:
    assert imagefolder.looks_like(tree(tmp_path, *SPLIT))
    assert placed(find(tmp_path)) == {path: str(tmp_path / path) for path in SPLIT}


@pytest.mark.parametrize("word", ["val", "valid", "validation", "Val"])
def test_the_words_for_a_validation_split_are_understood(tmp_path: Path, word: str) -> None:
    tree(tmp_path, "train/cat/1.jpg", f"{word}/cat/3.png")
    assert placed(find(tmp_path)) == {
        "train/cat/1.jpg": f"{tmp_path}/train/cat/1.jpg",
        "val/cat/3.png": f"{tmp_path}/{word}/cat/3.png",
    }


@pytest.mark.parametrize("test", ["test/9.jpg", "test/cat/9.jpg"])
def test_a_test_split_stays_apart_with_classes_or_without(tmp_path: Path, test: str) -> None:
    assert placed(find(tree(tmp_path, *SPLIT, test)))[test] == str(tmp_path / test)


def test_class_folders_are_divided_on_request(tmp_path: Path) -> None:
    found = find(tree(tmp_path, *CLASSES), "val_fraction=0.2")
    paths = placed(found)
    assert sorted(path.partition("/")[2] for path in paths) == sorted(CLASSES)
    for name in ("cat", "dog"):
        assert sum(path.startswith(f"val/{name}/") for path in paths) == val_count(10, 0.2) == 2
    assert any("20 % of every class becomes val" in note for note in found.notes)
    assert placed(find(tmp_path, "val_fraction=0.2", "split_seed=1")).keys() != paths.keys()


def test_a_train_folder_alone_is_divided_too_and_test_is_not(tmp_path: Path) -> None:
    paths = placed(find(tree(tmp_path, *(f"train/{path}" for path in CLASSES), "test/1.jpg"), "val_fraction=0.1"))
    assert (sum(path.startswith("val/") for path in paths), sum(path.startswith("test/") for path in paths)) == (2, 1)


@pytest.mark.parametrize("start", range(11))
def test_pieces_go_on_at_any_number(tmp_path: Path, start: int) -> None:
    unit = find(tree(tmp_path, *CLASSES), "val_fraction=0.3").units[1]
    assert list(unit.pieces(start)) == list(unit.pieces(0))[start:]
    assert (unit.files, unit.bytes) == (10, 10 * len("dog/0.jpg"))


def test_a_folder_that_stands_alone_is_gone_into(tmp_path: Path) -> None:
    tree(tmp_path / "download" / "pets", *SPLIT)
    assert placed(find(tmp_path))["val/cat/3.png"] == f"{tmp_path}/download/pets/val/cat/3.png"


def test_images_in_folders_below_their_class_are_flattened(tmp_path: Path) -> None:
    paths = placed(find(tree(tmp_path, *SPLIT, "train/cat/a/b/1.jpg", "train/cat/a/1.jpg")))
    assert {path for path in paths if path.startswith("train/cat")} == {
        "train/cat/1.jpg",
        "train/cat/a__1.jpg",
        "train/cat/a__b__1.jpg",
    }


def test_flat_names_that_meet_are_refused_by_both_names(tmp_path: Path) -> None:
    message = problems_of(tree(tmp_path, *SPLIT, "train/cat/a/1.jpg", "train/cat/a__1.jpg"))
    assert f"{tmp_path}/train/cat/a__1.jpg (would have the name of {tmp_path}/train/cat/a/1.jpg, a__1.jpg)" in message


def test_links_are_followed_to_the_files(tmp_path: Path) -> None:
    tree(tmp_path / "real", "cats/1.jpg", "2.jpg")
    tree(tmp_path / "set", "train/dog/0.jpg", "val/dog/0.jpg", "val/cat/0.jpg")
    (tmp_path / "set/train/cat").symlink_to(tmp_path / "real/cats")
    (tmp_path / "set/train/dog/2.jpg").symlink_to("../../../real/2.jpg")
    paths = placed(find(tmp_path / "set"))
    assert paths["train/dog/2.jpg"] == str(tmp_path / "real/2.jpg")
    assert paths["train/cat/1.jpg"] == f"{tmp_path}/set/train/cat/1.jpg"


def test_what_cannot_be_taken_is_refused_by_name(tmp_path: Path) -> None:
    tree(tmp_path, *SPLIT, "train/cat/tab\there.jpg")
    (tmp_path / "train/cat/lost.jpg").symlink_to("nowhere")
    (tmp_path / "train/cat/round").symlink_to("..")
    os.mkfifo(tmp_path / "train/cat/pipe.jpg")
    os.close(os.open(os.fsencode(tmp_path) + b"/train/cat/\xff.jpg", os.O_CREAT))
    message = problems_of(tmp_path)
    assert "5 images cannot be taken" in message
    for part in (
        "lost.jpg (a link to nothing)",
        "pipe.jpg (no file)",
        "round (a link to a folder that it lies in)",
        "\\there.jpg (its",
    ):
        assert part in message


def test_strangers_are_left_out_and_named_with_their_number(tmp_path: Path) -> None:
    strangers = ["README.md", "train/labels.csv", *(f"val/cat/{number}.txt" for number in range(9))]
    found = find(tree(tmp_path, *SPLIT, *strangers, "docs/picture.jpg", "train/cat/.hidden.jpg", "train/.git/x.jpg"))
    assert placed(found).keys() == set(SPLIT)
    note = next(note for note in found.notes if note.startswith("left out"))
    assert "as no images: 12 (" in note
    assert "README.md" in note
    assert note.endswith(", ...)")


REFUSED: Mapping[str, tuple[list[str], list[str], str]] = {
    "no val, none asked for": (CLASSES, [], "has no validation split. Add val_fraction=0.1"),
    "train alone": (["train/cat/1.jpg"], [], "has no validation split. Add val_fraction=0.1"),
    "test, no val": ([*SPLIT[:2], "test/cat/1.jpg", "test/dog/1.jpg"], [], "or rename test to val"),
    "val, and one asked for": (SPLIT, ["val_fraction=0.1"], "has a validation split already"),
    "one image of a class": ([*CLASSES, "eel/1.jpg"], ["val_fraction=0.1"], "1 classes have one image only"),
    "a class in train only": ([*SPLIT, "train/eel/1.jpg"], [], "val: lacks 1 classes that train has: eel."),
    "a class in val only": ([*SPLIT, "val/eel/1.jpg"], [], "train: lacks 1 classes that val has: eel."),
    "a class in test only": ([*SPLIT, "test/eel/1.jpg"], [], "train: lacks 1 classes that test has: eel."),
    "two for one split": ([*SPLIT, "valid/cat/1.jpg"], [], "val and valid both name the split val"),
    "no train": (["val/cat/1.jpg", "test/1.jpg"], [], "holds test and val, but no train"),
    "a class called test": ([*CLASSES, "test/1.jpg"], ["val_fraction=0.1"], "holds test beside cat, dog, but no train"),
    "a class called train": ([*CLASSES, "train/1.jpg"], ["val_fraction=0.1"], "holds images itself, not class folders"),
    "images without a class": ([*CLASSES, "1.jpg"], ["val_fraction=0.1"], "1 images lie in no class folder: 1.jpg"),
    "images without a class in a split": ([*SPLIT, "train/1.jpg"], [], "holds images itself"),
    "an empty class": ([*CLASSES, "eel/notes.txt"], ["val_fraction=0.1"], "1 class folders hold no image: eel"),
    "an empty class in val": ([*SPLIT, "val/eel/notes.txt"], [], "1 class folders hold no image: eel"),
    "a class name with a line's end": ([*CLASSES, "e\nel/1.jpg"], ["val_fraction=0.1"], "'e\\nel'"),
    "no images": (["cat/a.txt", "dog/b.txt"], ["val_fraction=0.1"], "holds no images"),
    "nothing": ([], [], "holds no images"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_clear_is_refused(tmp_path: Path, case: str) -> None:
    paths, overrides, message = REFUSED[case]
    assert message in problems_of(tree(tmp_path, *paths), *overrides)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    tree(tmp_path, *SPLIT, "train/1.jpg", "train/eel/x.txt", "valid/cat/1.jpg")
    assert problems_of(tmp_path).startswith("2 problems in the source:")
    tree(tmp_path / "b", *CLASSES, "0.jpg", "eel/x.txt", "cat/\t.jpg")
    assert problems_of(tmp_path / "b", "val_fraction=0.1").startswith("3 problems in the source:")


@pytest.mark.parametrize(("classes", "warned"), [(("1", "2", "10"), True), (("1", "2", "3"), False), (("01", "02", "10"), False)])
def test_numbers_that_sort_otherwise_as_text_are_warned_of(tmp_path: Path, classes: tuple[str, ...], warned: bool) -> None:
    told: list[str] = []
    sink = logger.add(told.append, format="{level} {message}")
    try:
        found = find(tree(tmp_path, *(f"{name}/{number}.jpg" for name in classes for number in range(2))), "val_fraction=0.5")
    finally:
        logger.remove(sink)
    assert any("1 is label 0, 10 is label 1, 2 is label 2" in note for note in found.notes) == warned
    assert any(line.startswith("WARNING") and "Label k is not class k" in line for line in told) == warned


def test_the_stamp_tells_one_state_from_another(tmp_path: Path) -> None:
    def stamp(*overrides: str) -> object:
        return find(tree(tmp_path, *CLASSES), "val_fraction=0.2", *overrides).stamp

    first = stamp()
    assert stamp() == first
    assert stamp("split_seed=1") != first
    tree(tmp_path, "cat/new.jpg")
    assert stamp() != first
    (tmp_path / "cat/new.jpg").unlink()
    assert find(tmp_path, "val_fraction=0.25").stamp != first


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "flat"])
def test_other_things_do_not_look_like_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "file":
        path.touch()
    elif kind != "missing":
        tree(path, *(["1.jpg"] if kind == "flat" else []))
        path.mkdir(exist_ok=True)
    assert not imagefolder.looks_like(path)
