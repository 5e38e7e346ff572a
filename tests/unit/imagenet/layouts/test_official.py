"""The official tars: what comes out of them, what is refused and how it is called, and what is missing."""

import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from src.batch import DataError
from src.config import ConfigError
from src.imagenet.pieces import MOST_BYTES
from src.imagenet.tar_units import RUN
from tests.scale_models import Model, scale_model, tar_of, write_folders, write_imagefolder, write_official
from tests.unit.data.tars import tar_bytes
from tests.unit.imagenet.layouts.run import found_in, tree_of

TRAIN, VAL, TEST, DEVKIT = (
    "ILSVRC2012_img_train.tar",
    "ILSVRC2012_img_val.tar",
    "ILSVRC2012_img_test_v10102019.tar",
    "ILSVRC2012_devkit_t12.tar.gz",
)


@pytest.fixture(scope="module")
def model() -> Model:
    return scale_model(12)


def inner(model: Model, wnid: str) -> dict[str, bytes]:
    return {name.partition("/")[2]: data for name, data in model.split("train").items() if name.startswith(wnid)}


def write_train(source: Path, classes: dict[str, bytes]) -> None:
    (source / TRAIN).write_bytes(tar_of(classes))


def test_all_images_come_out_in_their_classes(model: Model, tmp_path: Path) -> None:
    found = found_in(write_official(tmp_path, model))
    assert found.layout == "official"
    assert tree_of(found, tmp_path) == model.files
    assert [unit.name for unit in found.units] == [
        *(f"{TRAIN}/{wnid}.tar" for wnid in model.wnids),
        f"{VAL}/0-{len(model.val_classes)}",
        f"{TEST}/0-7",
    ]


@pytest.mark.parametrize("named", ["..", ".", TRAIN, VAL, TEST, DEVKIT])
def test_the_folder_the_one_above_or_any_of_the_archives_may_be_named(named: str, model: Model, tmp_path: Path) -> None:
    source = write_official(tmp_path / "a/b", model)
    assert tree_of(found_in(source.parent if named == ".." else source / named), tmp_path) == model.files


def test_an_archive_that_aria2_has_not_finished_is_named(model: Model, tmp_path: Path) -> None:
    write_official(tmp_path, model)
    (tmp_path / f"{TRAIN}.aria2").write_bytes(b"")
    with pytest.raises(ConfigError, match=f"{TRAIN}'?: is not downloaded yet"):
        found_in(tmp_path)


def test_every_unit_goes_on_at_any_piece(model: Model, tmp_path: Path) -> None:
    for unit in found_in(write_official(tmp_path, model)).units:
        whole = list(unit.pieces(0))
        assert [list(unit.pieces(start)) for start in range(len(whole) + 2)] == [whole[start:] for start in range(len(whole) + 2)]


def test_a_flat_tar_is_cut_into_runs(tmp_path: Path, model: Model) -> None:
    write_official(tmp_path, model)
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, RUN + 8)]
    (tmp_path / VAL).write_bytes(tar_of({name: name.encode() for name in names}))
    units = [unit for unit in found_in(tmp_path).units if unit.name.startswith(VAL)]
    assert [(unit.files, unit.bytes) for unit in units] == [(RUN, RUN * 28), (7, 7 * 28)]
    assert [piece.name for unit in units for piece in unit.pieces(0)] == names


def test_sums_and_sizes_that_are_published_are_told(model: Model, tmp_path: Path) -> None:
    found = found_in(write_official(tmp_path, model))
    assert {archive.path.name: (archive.md5, archive.bytes) for archive in found.archives} == {
        TRAIN: ("1d675b47d978889d74fa0da5fadfb00e", 147_897_477_120),
        VAL: ("29b22e2961454d5413ddabcf34fc5622", 6_744_924_160),
        TEST: ("e1b8681fff3d63731c599df9b4b6fc02", None),
        DEVKIT: ("fa75699e90414af021442c21a62c3abf", None),
    }


def test_a_changed_source_is_another_one(model: Model, tmp_path: Path) -> None:
    before = found_in(write_official(tmp_path, model)).stamp
    assert found_in(tmp_path).stamp == before
    for name in (TRAIN, VAL, TEST, DEVKIT):
        os.utime(tmp_path / name, (1, 1))
        after = found_in(tmp_path).stamp
        assert after != before, name
        before = after


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ([VAL], f"{VAL} must lie there, too"),
        ([TRAIN, DEVKIT], f"{TRAIN} and {DEVKIT} must lie there, too"),
        ([VAL, DEVKIT], f"{VAL} and {DEVKIT} must lie there, too"),
        ([TRAIN, VAL, DEVKIT], f"{TRAIN} and {VAL} and {DEVKIT} must lie there, too"),
    ],
)
def test_all_that_is_missing_is_named_together_with_where_to_get_it(
    gone: list[str], named: str, model: Model, tmp_path: Path
) -> None:
    write_official(tmp_path, model)
    for name in gone:
        (tmp_path / name).unlink()
    with pytest.raises(ConfigError) as caught:
        found_in(tmp_path)
    assert named in str(caught.value) and "https://image-net.org" in str(caught.value)
    assert len(caught.value.problems) == 1


def test_a_tar_that_was_unpacked_and_deleted_is_met_with_what_to_type(model: Model, tmp_path: Path) -> None:
    write_official(tmp_path, model)
    (tmp_path / TRAIN).unlink()
    (tmp_path / "train/n01440764").mkdir(parents=True)
    with pytest.raises(ConfigError, match=rf"train/ is there, as if it was unpacked.*tar -xf {VAL} -C val.*layout=folders"):
        found_in(tmp_path)


def test_one_split_alone_is_prepared_where_the_layout_is_typed_and_the_other_stands_there(model: Model, tmp_path: Path) -> None:
    source = write_official(tmp_path / "source", model, test=False)
    (source / TRAIN).unlink()
    target = tmp_path / "target"
    with pytest.raises(ConfigError, match=TRAIN):
        found_in(source, "layout=official", f"target={target}")
    (target / "train").mkdir(parents=True)
    with pytest.raises(ConfigError, match=TRAIN):
        found_in(source, f"target={target}")
    found = found_in(source, "layout=official", f"target={target}")
    assert tree_of(found, tmp_path) == {path: data for path, data in model.files.items() if path.startswith("val/")}


def test_a_devkit_that_cannot_be_read_and_a_damaged_tar_are_named_at_once(model: Model, tmp_path: Path) -> None:
    write_official(tmp_path, model)
    (tmp_path / DEVKIT).write_bytes(b"no devkit")
    (tmp_path / VAL).write_bytes((tmp_path / VAL).read_bytes()[:-12_000])
    with pytest.raises(ConfigError) as caught:
        found_in(tmp_path)
    text = str(caught.value)
    assert len(caught.value.problems) == 2
    assert f"{DEVKIT}: cannot be read as ImageNet's devkit" in text.replace("'", "").replace("ImageNets", "ImageNet's")
    assert "is truncated" in text and "data.devkit_path" not in text


STRANGERS: dict[str, tuple[Callable[[Model], dict[str, bytes]], str]] = {
    "of another class": (lambda model: {f"{model.wnids[1]}_5.JPEG": b"x"}, r"n\d{8}_5.JPEG', which is no image of class n01440764"),
    "in a folder": (lambda model: {"a/n01440764_5.JPEG": b"x"}, "a/n01440764_5.JPEG', which is no image of class"),
    "absolute": (lambda model: {"/n01440764_5.JPEG": b"x"}, "holds the path '/n01440764_5.JPEG'"),
    "upwards": (lambda model: {"../n01440764_5.JPEG": b"x"}, "holds the path '../n01440764_5.JPEG'"),
    "of another kind": (lambda model: {"n01440764_5.jpeg": b"x"}, "n01440764_5.jpeg', which is no image of class"),
    "hidden": (lambda model: {"._n01440764_5.JPEG": b"x"}, "._n01440764_5.JPEG', which is no image"),
    "digits of another script": (lambda model: {"n01440764_٣.JPEG": b"x"}, "which is no image of class"),
    "empty": (lambda model: {"n01440764_5.JPEG": b""}, "n01440764_5.JPEG, which is empty"),
    "a tar again": (lambda model: {"n01440764.tar": tar_of({})}, "n01440764.tar', which is no image"),
    "nothing": (lambda model: {}, "holds no image"),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_what_is_no_image_of_its_class_is_refused_by_archive_and_member(kind: str, model: Model, tmp_path: Path) -> None:
    make, message = STRANGERS[kind]
    write_official(tmp_path, model)
    own = {} if kind == "nothing" else inner(model, "n01440764")
    write_train(tmp_path, {"n01440764.tar": tar_of(own | make(model))})
    found = found_in(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        list(found.units[0].pieces(0))
    assert str(caught.value).startswith(f"{TRAIN}/n01440764.tar ")


def test_an_image_that_is_there_twice_is_refused(model: Model, tmp_path: Path) -> None:
    write_official(tmp_path, model)
    once = tar_of(inner(model, "n01440764"))
    write_train(tmp_path, {"n01440764.tar": appended(once, once)})
    with pytest.raises(DataError, match=r"holds n01440764_\d+.JPEG twice"):
        list(found_in(tmp_path).units[0].pieces(0))


def appended(tar: bytes, more: bytes) -> bytes:
    """One tar behind the other, without the first one's end mark: what tar -r makes."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        end = max(member.offset_data + -(-member.size // 512) * 512 for member in archive)
    return tar[:end] + more


def test_a_class_or_a_validation_image_that_is_there_twice_is_refused(model: Model, tmp_path: Path) -> None:
    write_official(tmp_path, model)
    whole = {name: (tmp_path / name).read_bytes() for name in (TRAIN, VAL)}
    (tmp_path / TRAIN).write_bytes(appended(whole[TRAIN], tar_of({"n02012849.tar": tar_of({})})))
    (tmp_path / VAL).write_bytes(appended(whole[VAL], tar_of({"ILSVRC2012_val_00000003.JPEG": b"x"})))
    with pytest.raises(ConfigError) as caught:
        found_in(tmp_path)
    assert "holds n02012849.tar twice" in str(caught.value)
    assert "holds ILSVRC2012_val_00000003.JPEG twice" in str(caught.value)


def test_a_member_larger_than_any_image_is_refused_before_it_is_read(model: Model, tmp_path: Path) -> None:
    """A sparse file stands for 65 MiB."""
    write_official(tmp_path, model)
    header = tarfile.TarInfo("n01440764_5.JPEG")
    header.size = MOST_BYTES + 512
    outer = tarfile.TarInfo("n01440764.tar")
    outer.size = 512 + header.size + 1024
    with open(tmp_path / TRAIN, "wb") as file:
        file.write(outer.tobuf() + header.tobuf())
        file.truncate(512 + outer.size + 1024)
    with pytest.raises(DataError, match=r"n01440764_5.JPEG of 67,109,376 bytes: no image"):
        list(found_in(tmp_path).units[0].pieces(0))


OUTER: dict[str, tuple[dict[str, bytes], str]] = {
    "a stranger": ({"n01440764.tar": b"", "readme.txt": b"x"}, "holds 'readme.txt', which is no class tar"),
    "a class tar in a folder": ({"a/n01440764.tar": b""}, "holds 'a/n01440764.tar', which is no class tar"),
    "an absolute name": ({"/n01440764.tar": b""}, "holds the path '/n01440764.tar'"),
    "an image": ({"n01440764_1.JPEG": b"x"}, "holds 'n01440764_1.JPEG', which is no class tar"),
    "nothing": ({}, "holds no class tar"),
}


@pytest.mark.parametrize("kind", OUTER)
def test_what_is_no_class_tar_is_refused_when_the_source_is_looked_at(kind: str, model: Model, tmp_path: Path) -> None:
    files, message = OUTER[kind]
    write_official(tmp_path, model)
    (tmp_path / TRAIN).write_bytes(tar_bytes(files))
    with pytest.raises(ConfigError, match=message) as caught:
        found_in(tmp_path)
    assert str(tmp_path / TRAIN) in str(caught.value)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("ILSVRC2012_test_00000001.JPEG", "no val image"),
        ("ILSVRC2012_val_1.JPEG", "no val image"),
        ("n01440764/ILSVRC2012_val_00000001.JPEG", "no val image"),
        ("/ILSVRC2012_val_00000001.JPEG", "holds the path '/ILSVRC"),
        ("../ILSVRC2012_val_00000001.JPEG", "holds the path"),
    ],
)
def test_the_validation_tar_holds_nothing_but_its_images(member: str, message: str, model: Model, tmp_path: Path) -> None:
    write_official(tmp_path, model)
    (tmp_path / VAL).write_bytes(tar_of({"ILSVRC2012_val_00000007.JPEG": b"x", member: b"x"}))
    with pytest.raises(ConfigError, match=message):
        found_in(tmp_path)


def test_an_unpacked_copy_beside_the_tars_is_told_of_and_the_tars_are_taken(model: Model, tmp_path: Path) -> None:
    write_official(write_folders(tmp_path, model), model)
    found = found_in(tmp_path)
    assert found.layout == "official"
    assert any("looks like layout=folders too, which is whole" in note for note in found.notes)
    assert found_in(tmp_path, "layout=folders").layout == "folders"


def test_a_tar_left_beside_a_whole_imagefolder_does_not_get_in_its_way(model: Model, tmp_path: Path) -> None:
    write_imagefolder(tmp_path, model)
    write_official(tmp_path / "tars", model)
    (tmp_path / "tars" / VAL).rename(tmp_path / VAL)
    (tmp_path / "tars" / TRAIN).unlink()
    shutil.rmtree(tmp_path / "tars")
    found = found_in(tmp_path)
    assert found.layout == "imagefolder"
    assert any("layout=official too, which is not whole" in note for note in found.notes)
