"""Kaggle's tree: classes from the csv or from annotations, its own lists, and lies in them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from src.batch import DataError
from src.config import ConfigError
from src.imagenet.labels.annotations import MOST_XML
from tests.scale_models import Model, annotation, scale_model, write_kaggle, write_kaggle_zip
from tests.unit.imagenet.layouts.run import found_in, tree_of

CSV, MAPPING = "LOC_val_solution.csv", "LOC_synset_mapping.txt"
XML = "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000003.xml"


@pytest.fixture(scope="module")
def model() -> Model:
    return scale_model(12)


@pytest.mark.parametrize("csv", [True, False])
def test_csv_and_annotations_give_the_same_tree(csv: bool, model: Model, tmp_path: Path) -> None:
    found = found_in(write_kaggle(tmp_path, model, csv=csv))
    assert found.layout == "kaggle"
    assert tree_of(found, tmp_path / "side") == model.files
    assert found.listed(tmp_path / "side") == set(model.files)
    assert found.words(tmp_path / "side") == (model.words if csv else {})
    assert ("LOC_val_solution.csv" in found.notes[0]) == csv


@pytest.mark.parametrize("named", [".", "..", "ILSVRC", "ILSVRC/Data", "ILSVRC/Data/CLS-LOC", "ILSVRC/Data/CLS-LOC/train"])
def test_any_folder_of_the_trees_upper_part_may_be_named(named: str, model: Model, tmp_path: Path) -> None:
    source = write_kaggle(tmp_path / "downloads/kaggle", model)
    if named == "ILSVRC/Data/CLS-LOC/train":
        with pytest.raises(ConfigError):  # these are train's class folders: an ImageFolder without a validation split
            found_in(source / named)
    else:
        found = found_in(source / named)
        assert tree_of(found, tmp_path / "side") == model.files
        assert not any("looks like" in note for note in found.notes)


def test_without_lists_nothing_is_listed(model: Model, tmp_path: Path) -> None:
    write_kaggle(tmp_path, model)
    shutil.rmtree(tmp_path / "ILSVRC/ImageSets")
    assert found_in(tmp_path).listed(tmp_path) is None


def test_what_the_lists_name_and_the_tree_lacks_is_told_by_the_lists(model: Model, tmp_path: Path) -> None:
    write_kaggle(tmp_path, model)
    gone = next(path for path in model.files if path.startswith("train/"))
    (tmp_path / "ILSVRC/Data/CLS-LOC" / gone).unlink()
    found = found_in(tmp_path)
    listed = found.listed(tmp_path)
    assert listed is not None
    assert listed - tree_of(found, tmp_path).keys() == {gone}


def replaced(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(source: Path) -> None:
        (source / name).write_bytes(change((source / name).read_bytes()))

    return apply


LIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "another header": (replaced(CSV, lambda data: data.replace(b"ImageId", b"Id", 1)), "begins with 'Id,PredictionString'"),
    "no header": (replaced(CSV, lambda data: data.partition(b"\n")[2]), "begins with 'ILSVRC2012_val"),
    "empty": (replaced(CSV, lambda data: b""), "begins with ''"),
    "a class in words": (
        replaced(CSV, lambda data: data + b"ILSVRC2012_val_00000001,tench 1 2 3 4\n"),
        "line .*is no image with its class",
    ),
    "no class": (replaced(CSV, lambda data: data + b"ILSVRC2012_val_00099999,\n"), "is no image with its class"),
    "half a box": (replaced(CSV, lambda data: data + b"ILSVRC2012_val_00099999,n01440764 1 2\n"), "is no image with its class"),
    "three columns": (
        replaced(CSV, lambda data: data + b"ILSVRC2012_val_00099999,n01440764 1 2 3 4,5\n"),
        "is no image with its class",
    ),
    "a training image": (replaced(CSV, lambda data: data + b"n01440764_1,n01440764 1 2 3 4\n"), "is no image with its class"),
    "two classes in one line": (
        replaced(CSV, lambda data: data + b"ILSVRC2012_val_00099999,n01440764 1 2 3 4 n02012849 1 2 3 4\n"),
        "ILSVRC2012_val_00099999 is of two classes, n02012849 and n01440764",
    ),
    "two classes in two lines": (
        replaced(
            CSV, lambda data: data + b"ILSVRC2012_val_00099999,n01440764 1 2 3 4\nILSVRC2012_val_00099999,n02012849 1 2 3 4\n"
        ),
        "is of two classes, n01440764 and n02012849",
    ),
    "a class that the mapping lacks": (
        replaced(CSV, lambda data: data + b"ILSVRC2012_val_00099999,n99999999 1 2 3 4\n"),
        "is of class n99999999, which LOC_synset_mapping.txt does not name",
    ),
    "no text": (replaced(CSV, lambda data: data + b"\xff\xfe"), "is no text"),
    "a NUL": (replaced(CSV, lambda data: data + b"ILSVRC2012_val_00099999,n0144\x000764 1 2 3 4\n"), CSV),
    "a mapping out of order": (
        replaced(MAPPING, lambda data: b"".join(reversed(data.splitlines(keepends=True)))),
        "are not in the order of their wnids",
    ),
    "a class twice in the mapping": (replaced(MAPPING, lambda data: data + data), "or is there twice"),
    "a mapping by name": (replaced(MAPPING, lambda data: b"tench n01440764\n"), "line 1: 'tench n01440764' is no class"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_in_the_tables_is_refused_before_anything_is_done(lie: str, model: Model, tmp_path: Path) -> None:
    apply, message = LIES[lie]
    apply(write_kaggle(tmp_path, model))
    with pytest.raises(ConfigError, match=message):
        found_in(tmp_path)


BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "n01440764"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>
<annotation><object><name>&c;</name></object></annotation>
"""
EXTERNAL = b"""<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation><object><name>&x;</name></object></annotation>"""
DAMAGES: dict[str, tuple[bytes, str]] = {
    "entities that grow": (BOMB, "holds a document type"),
    "an entity that names a file": (EXTERNAL, "holds a document type"),
    "a document type in UTF-16": (BOMB.decode().replace("?>", ' encoding="utf-16"?>', 1).encode("utf-16"), "holds a document type"),
    "a document type in UTF-7": (b'<?xml version="1.0" encoding="utf-7"?>' + BOMB.partition(b"\n")[2], "holds a document type"),
    "truncated": (annotation("x", "n01440764")[:-5], "cannot be read as XML"),
    "empty": (b"", "cannot be read as XML"),
    "no object": (b"<annotation><filename>n01440764</filename></annotation>", "names no object"),
    "a name elsewhere": (b"<annotation><name>n01440764</name></annotation>", "names no object"),
    "two classes": (
        b"<annotation><object><name>n01440764</name></object><object><name>n02012849</name></object></annotation>",
        "names 'n01440764', 'n02012849'",
    ),
    "an English name": (b"<annotation><object><name>crane</name></object></annotation>", "names 'crane'"),
    "huge": (b"<annotation>" + b" " * MOST_XML, "has more than 1,048,576 bytes"),
    "deep": (b"<a>" * 100_000, "cannot be read as XML"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_annotation_that_tells_no_class_or_does_more_is_refused_by_name(damage: str, model: Model, tmp_path: Path) -> None:
    data, message = DAMAGES[damage]
    write_kaggle(tmp_path, model, csv=False)
    (tmp_path / XML).write_bytes(data)
    found = found_in(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        found.labels(tmp_path)
    assert str(tmp_path / XML) in str(caught.value)


def test_neither_csv_nor_annotations_is_told_with_what_to_put_there(model: Model, tmp_path: Path) -> None:
    write_kaggle(tmp_path, model, csv=False, xml=False)
    shutil.rmtree(tmp_path / "ILSVRC/Data/CLS-LOC/test")
    with pytest.raises(ConfigError, match=r"nothing tells the classes of the validation images. Put LOC_val_solution.csv there"):
        found_in(tmp_path)


def test_a_tree_without_validation_images_is_named_with_all_else(model: Model, tmp_path: Path) -> None:
    write_kaggle(tmp_path, model, csv=False, xml=False)
    shutil.rmtree(tmp_path / "ILSVRC/Data/CLS-LOC/val")
    (tmp_path / "ILSVRC/Data/CLS-LOC/train/n01440764/x.JPEG").write_bytes(b"x")
    with pytest.raises(ConfigError) as caught:
        found_in(tmp_path)
    assert len(caught.value.problems) == 3


def test_the_zip_beside_the_unpacked_tree_is_a_choice_that_is_left_to_the_user(model: Model, tmp_path: Path) -> None:
    """The tree could be half of it."""
    write_kaggle_zip(write_kaggle(tmp_path, model), model)
    with pytest.raises(ConfigError, match=r"holds layout=kaggle twice, as an archive and unpacked. Name one of them"):
        found_in(tmp_path)
    for named in ("ILSVRC", "imagenet-object-localization-challenge.zip"):
        assert tree_of(found_in(tmp_path / named), tmp_path / "side") == model.files


def test_a_changed_table_makes_another_source(model: Model, tmp_path: Path) -> None:
    before = found_in(write_kaggle(tmp_path, model)).stamp
    assert found_in(tmp_path).stamp == before
    (tmp_path / CSV).write_bytes((tmp_path / CSV).read_bytes())
    assert found_in(tmp_path).stamp != before
