"""Class folders beside flat validation images: whatever tells the classes gives the same, and what cannot be known is refused."""

import shutil
from pathlib import Path

import pytest

from src.config import ConfigError
from tests.scale_models import Model, devkit_files, scale_model, tar_of, write_devkit, write_folders
from tests.unit.imagenet.layouts.run import found_in, tree_of


@pytest.fixture(scope="module")
def model() -> Model:
    """With all the classes of the first ten validation images."""
    return scale_model(45)


LABELS = ("devkit", "devkit folder", "ranks", "wnids", "synset labels", "csv")


def ranks(model: Model) -> dict[str, int]:
    return {wnid: label for label, wnid in enumerate(scale_model().wnids)}


@pytest.mark.parametrize("labels", LABELS)
def test_every_list_of_classes_gives_the_same_tree(labels: str, tmp_path: Path) -> None:
    model = scale_model() if labels == "ranks" else scale_model(45)
    found = found_in(write_folders(tmp_path, model, labels=labels))
    assert found.layout == "folders"
    assert tree_of(found, tmp_path) == model.files


@pytest.mark.parametrize("named", [".", "train", "val", ".."])
def test_the_root_a_split_or_the_folder_above_may_be_named(named: str, model: Model, tmp_path: Path) -> None:
    source = write_folders(tmp_path / "downloads/imagenet", model)
    assert tree_of(found_in(source / named if named != ".." else source.parent), tmp_path) == model.files


def test_every_unit_goes_on_at_any_piece(model: Model, tmp_path: Path) -> None:
    for unit in found_in(write_folders(tmp_path, model)).units:
        whole = list(unit.pieces(0))
        assert unit.files == len(whole)
        assert [list(unit.pieces(start)) for start in range(len(whole) + 2)] == [whole[start:] for start in range(len(whole) + 2)]


def test_the_devkits_numbers_without_its_table_are_refused(model: Model, tmp_path: Path) -> None:
    """The trap: every number is in range, and nearly every class would be wrong."""
    write_folders(tmp_path, scale_model(), labels="none")
    truth = devkit_files(scale_model())["data/ILSVRC2012_validation_ground_truth.txt"]
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_bytes(truth)
    with pytest.raises(ConfigError, match=r"what they count cannot be known.*Give the devkit"):
        found_in(tmp_path)


@pytest.mark.parametrize("first", [0, 1])
def test_ranks_from_0_or_from_1_are_told_apart_by_the_first_images(first: int, tmp_path: Path) -> None:
    model = scale_model()
    write_folders(tmp_path, model, labels="none")
    rank = ranks(model)
    lines = [f"val/{name} {rank[wnid] + first}\n" for name, wnid in model.val_classes.items()]
    (tmp_path / "val_list.txt").write_text("".join(lines))
    assert tree_of(found_in(tmp_path), tmp_path) == model.files


def test_ranks_among_all_thousand_are_understood_for_fewer_classes(model: Model, tmp_path: Path) -> None:
    write_folders(tmp_path, model, labels="none")
    rank = ranks(model)
    (tmp_path / "val.txt").write_text("".join(f"{name} {rank[wnid]}\n" for name, wnid in model.val_classes.items()))
    assert tree_of(found_in(tmp_path), tmp_path) == model.files


def test_ranks_are_refused_where_none_of_the_first_images_can_confirm_them(tmp_path: Path) -> None:
    model = scale_model(12)
    write_folders(tmp_path, model, labels="ranks")
    with pytest.raises(ConfigError, match="cannot be known"):
        found_in(tmp_path)


@pytest.mark.parametrize("order", ["devkit", "shuffled"])
def test_numbers_beside_names_that_are_no_ranks_are_refused(order: str, tmp_path: Path) -> None:
    model = scale_model()
    write_folders(tmp_path, model, labels="none")
    numbers = {wnid: number for number, wnid in enumerate(model.devkit_order if order == "devkit" else model.wnids[::-1], 1)}
    (tmp_path / "val.txt").write_text("".join(f"{name} {numbers[wnid]}\n" for name, wnid in model.val_classes.items()))
    with pytest.raises(ConfigError, match="cannot be known"):
        found_in(tmp_path)


def test_numbers_of_any_order_are_understood_by_the_training_list_beside_them(model: Model, tmp_path: Path) -> None:
    write_folders(tmp_path, model, labels="none")
    numbers = {wnid: number for number, wnid in enumerate(model.wnids[::-1], 7)}
    train = [f"train/{path} {numbers[path[:9]]}\n" for path in model.split("train")]
    (tmp_path / "train.txt").write_text("".join(train))
    (tmp_path / "val.txt").write_text("".join(f"{name} {numbers[wnid]}\n" for name, wnid in model.val_classes.items()))
    assert tree_of(found_in(tmp_path), tmp_path) == model.files


def test_a_training_list_in_another_order_than_the_validation_list_is_no_help(model: Model, tmp_path: Path) -> None:
    write_folders(tmp_path, model, labels="none")
    rank = {wnid: label for label, wnid in enumerate(model.wnids)}
    other = {wnid: label for label, wnid in enumerate(model.devkit_order)}
    (tmp_path / "train.txt").write_text("".join(f"{path} {rank[path[:9]]}\n" for path in model.split("train")))
    (tmp_path / "val.txt").write_text("".join(f"{name} {other[wnid]}\n" for name, wnid in model.val_classes.items()))
    with pytest.raises(ConfigError, match="cannot be known"):
        found_in(tmp_path)


def test_a_list_whose_wnids_are_not_those_of_imagenets_first_images_is_refused(model: Model, tmp_path: Path) -> None:
    write_folders(tmp_path, model, labels="none")
    wrong = [*list(model.val_classes.values())[1:], model.wnids[0]]
    (tmp_path / "synset_labels.txt").write_text("".join(f"{wnid}\n" for wnid in wrong))
    with pytest.raises(ConfigError, match=r"says that ILSVRC2012_val_0000000\d is of class n\d{8}, and it is of n\d{8}"):
        found_in(tmp_path)


def test_a_list_that_contradicts_the_devkit_is_named_and_one_that_agrees_is_noted(model: Model, tmp_path: Path) -> None:
    write_folders(tmp_path, model)
    names = dict(model.val_classes)
    (tmp_path / "val.txt").write_text("".join(f"{name} {wnid}\n" for name, wnid in names.items()))
    assert any("from ILSVRC2012_devkit_t12.tar.gz, and val.txt agrees" in note for note in found_in(tmp_path).notes)
    last = list(names)[-1]
    names[last] = next(wnid for wnid in model.wnids if wnid != names[last])
    (tmp_path / "val.txt").write_text("".join(f"{name} {wnid}\n" for name, wnid in names.items()))
    with pytest.raises(
        ConfigError, match=rf"val.txt: calls {last[:-5]} {names[last]}, and ILSVRC2012_devkit_t12.tar.gz calls it n"
    ):
        found_in(tmp_path)


def test_other_texts_beside_the_folders_are_passed_over(model: Model, tmp_path: Path) -> None:
    write_folders(tmp_path, model)
    (tmp_path / "README.txt").write_bytes(b"\xff\xfe\0not text\n")
    (tmp_path / "synsets.txt").write_text("".join(f"{wnid}\n" for wnid in model.wnids))
    (tmp_path / "synset_words.txt").write_text("".join(f"{wnid} {model.words[wnid]}\n" for wnid in model.wnids))
    (tmp_path / "numbers.txt").write_text("".join(f"{number}\n" for number in range(1, 60)))
    (tmp_path / "empty.txt").write_text("")
    assert tree_of(found_in(tmp_path), tmp_path) == model.files


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("ILSVRC2012_val_00000001.JPEG n01751748\nILSVRC2012_val_00000002.JPEG\n", "line 2: 'ILSVRC2012_val_00000002.JPEG' is no"),
        (
            "ILSVRC2012_val_00000001.JPEG n01751748\nILSVRC2012_val_00000001.JPEG n01440764\n",
            "of two classes, n01751748 and n01440764",
        ),
        ("ILSVRC2012_val_00000001.JPEG n01751748\nILSVRC2012_val_00000002.JPEG 970\n", "a wnid and others a number"),
    ],
)
def test_a_list_that_changes_in_the_middle_is_refused_by_line(lines: str, message: str, model: Model, tmp_path: Path) -> None:
    write_folders(tmp_path, model, labels="none")
    (tmp_path / "val.txt").write_text(lines)
    with pytest.raises(ConfigError, match=message):
        found_in(tmp_path)


def test_what_tells_no_classes_is_told_what_to_put_there(model: Model, tmp_path: Path) -> None:
    write_folders(tmp_path, model, labels="none")
    with pytest.raises(
        ConfigError, match=r"nothing tells the classes.*ILSVRC2012_devkit_t12.tar.gz.*ILSVRC2012_val_00000001.JPEG n01751748"
    ):
        found_in(tmp_path)


def test_class_tars_that_were_not_unpacked_yet_are_read_where_they_lie(model: Model, tmp_path: Path) -> None:
    write_folders(tmp_path, model)
    for wnid in model.wnids[::2]:
        folder = tmp_path / "train" / wnid
        (tmp_path / "train" / f"{wnid}.tar").write_bytes(tar_of({path.name: path.read_bytes() for path in folder.iterdir()}))
        shutil.rmtree(folder)
    found = found_in(tmp_path)
    assert tree_of(found, tmp_path) == model.files
    assert found.units[0].name == f"train/{model.wnids[0]}.tar"
    assert [archive.path.name for archive in found.archives] == [f"{wnid}.tar" for wnid in model.wnids[::2]]


def test_unpacking_that_was_broken_off_is_refused_by_class(model: Model, tmp_path: Path) -> None:
    write_folders(tmp_path, model)
    (tmp_path / "train/n01440764.tar").write_bytes(tar_of({}))
    with pytest.raises(ConfigError, match=r"both a folder and a tar of 'n01440764'.*Delete the folder"):
        found_in(tmp_path)


def test_strangers_in_every_folder_are_named_at_once(model: Model, tmp_path: Path) -> None:
    write_folders(tmp_path, model)
    (tmp_path / "train/n01440764/photo.jpg").write_bytes(b"x")
    (tmp_path / "train/n01440764/n02012849_1.JPEG").write_bytes(b"x")
    (tmp_path / "train/notes").mkdir()
    (tmp_path / "train/n00000001").mkdir()
    (tmp_path / "val/n01440764").mkdir()
    (tmp_path / "test/ILSVRC2012_val_00000001.JPEG").write_bytes(b"x")
    (tmp_path / "train/.DS_Store").write_bytes(b"x")
    with pytest.raises(ConfigError) as caught:
        found_in(tmp_path)
    text = str(caught.value)
    assert len(caught.value.problems) == 5
    for words in (
        "'n02012849_1.JPEG', 'photo.jpg', no images of n01440764",
        "'notes', neither class folders",
        "n00000001: holds no image",
        "'n01440764', which are no val images",
        "'ILSVRC2012_val_00000001.JPEG', which are no test images",
    ):
        assert words in text


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_split_is_named(split: str, model: Model, tmp_path: Path) -> None:
    write_folders(tmp_path, model)
    shutil.rmtree(tmp_path / split)
    with pytest.raises(ConfigError, match=f"no {split}/ is there"):
        found_in(tmp_path, "layout=folders")


def test_a_list_within_the_validation_folder_is_found(model: Model, tmp_path: Path) -> None:
    write_folders(tmp_path, model, labels="none")
    (tmp_path / "val/val.txt").write_text("".join(f"{name} {wnid}\n" for name, wnid in model.val_classes.items()))
    assert tree_of(found_in(tmp_path), tmp_path) == model.files


def test_a_changed_list_makes_another_source(model: Model, tmp_path: Path) -> None:
    before = found_in(write_folders(tmp_path, model)).stamp
    assert found_in(tmp_path).stamp == before
    write_devkit(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", model)
    assert found_in(tmp_path).stamp != before
