"""The arrangement: flat images find their class, splits agree, lists are compared; nothing is visible before all of it is right."""

import os
from pathlib import Path

import pytest
from loguru import logger

from src.config import ConfigError
from src.imagenet.arrange import arrange, clear_away
from src.imagenet.classes import read_classes
from src.imagenet.manifest import manifest_path, read_manifest
from src.imagenet.pieces import Found, Piece
from src.imagenet.rows import Rows
from src.imagenet.space import StoppedError
from src.imagenet.writing import MODIFIED_NS
from tests.unit.imagenet.made_up import MadeUp, extract, found, image

TRAIN = ["train/n1/n1_1.JPEG", "train/n1/n1_2.JPEG", "train/n2/n2_1.JPEG"]
FLAT = ["val/v_1.JPEG", "val/v_2.JPEG"]
TEST = ["test/t_1.JPEG"]
LABELS = {"v_1": "n2", "v_2": "n1"}


def made(target: Path, paths: list[str], **more: object) -> Found:
    unit = MadeUp("a.tar", [*(image(path) for path in paths), Piece("side", "", "lists/a.xml", b"<x/>")])
    extract(target, [unit])
    return found([unit], labels=lambda side: LABELS if (side / "lists/a.xml").read_bytes() == b"<x/>" else {}, **more)


def put_in_order(target: Path, source: Found) -> None:
    journal, rows = extract(target, source.units)
    arrange(target, source, rows, journal)


def visible(target: Path) -> list[str]:
    return sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file() and ".prepare" not in path.parts)


def test_flat_images_get_the_folder_of_their_label_and_all_is_published(tmp_path: Path) -> None:
    source = made(tmp_path, [*TRAIN, *FLAT, *TEST], words=lambda side: {"n1": "a thing"})
    assert visible(tmp_path) == []
    put_in_order(tmp_path, source)
    assert visible(tmp_path) == sorted([*TRAIN, "val/n2/v_1.JPEG", "val/n1/v_2.JPEG", *TEST, "classes.tsv"])
    assert (tmp_path / "val/n2/v_1.JPEG").read_bytes() == b"val/v_1.JPEG"
    assert read_classes(tmp_path / "classes.tsv") == (("n1", "n2"), ("a thing", ""))
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert [manifest.paths[index] for index in range(6)] == visible(tmp_path)[1:]
    clear_away(tmp_path)
    assert sorted(os.listdir(tmp_path / ".prepare")) == ["journal.jsonl", "manifest.tsv.gz"]


def test_two_preparations_have_the_same_times_and_manifest_and_another_content_has_other_times(tmp_path: Path) -> None:
    times = []
    for name, paths in (("a", TRAIN), ("b", TRAIN), ("c", ["train/n1/n1_0.JPEG", *TRAIN[1:]])):
        (tmp_path / name).mkdir()
        put_in_order(tmp_path / name, made(tmp_path / name, [*paths, *FLAT]))
        folders = sorted(path for path in (tmp_path / name).glob("*/*") if path.is_dir() and ".prepare" not in path.parts)
        times.append({str(path.relative_to(tmp_path / name)): path.stat().st_mtime_ns for path in folders})
        assert {path.stat().st_mtime_ns for path in (tmp_path / name).glob("*/*/*.JPEG")} == {MODIFIED_NS}
    assert manifest_path(tmp_path / "a").read_bytes() == manifest_path(tmp_path / "b").read_bytes()
    assert times[0] == times[1]
    assert [folder for folder in times[0] if times[0][folder] != times[2][folder]] == ["train/n1"]


def test_images_without_a_label_are_named_and_nothing_is_visible(tmp_path: Path) -> None:
    source = made(tmp_path, [*TRAIN, *FLAT, "val/v_9.JPEG"])
    with pytest.raises(ConfigError, match=r"1 of 3 validation images have no class in the source's lists: v_9\."):
        put_in_order(tmp_path, source)
    assert visible(tmp_path) == []


def test_labels_without_images_are_told(tmp_path: Path) -> None:
    told: list[str] = []
    handler = logger.add(lambda message: told.append(str(message)))
    (tmp_path / ".prepare").mkdir()
    put_in_order(tmp_path, made(tmp_path, ["train/n2/x.JPEG", "val/v_1.JPEG"]))
    logger.remove(handler)
    assert any("1 validation images that the source's lists tell of are not there: v_2" in line for line in told)


def test_classes_that_differ_are_named_and_nothing_is_visible(tmp_path: Path) -> None:
    paths = [f"train/n{number}/x.JPEG" for number in range(9)] + ["val/n8/v.JPEG", "val/n9/v.JPEG"]
    with pytest.raises(ConfigError) as caught:
        put_in_order(tmp_path, made(tmp_path, paths))
    assert "val lacks 8 classes that train has: n0, n1, n2, n3, n4, ...; train lacks 1 classes that val has: n9." in str(
        caught.value
    )
    assert visible(tmp_path) == []


def test_an_image_both_flat_and_in_its_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is there both flat and in a class folder: val/n2/v_1.JPEG"):
        put_in_order(tmp_path, made(tmp_path, [*TRAIN, *FLAT, "val/n2/v_1.JPEG"]))
    assert visible(tmp_path) == []


def test_training_images_without_a_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no class is known of train/x.JPEG"):
        put_in_order(tmp_path, made(tmp_path, [*TRAIN, "train/x.JPEG"]))


def test_the_sources_own_lists_tell_exactly_what_is_missing(tmp_path: Path) -> None:
    listed = frozenset([*TRAIN[1:], "train/n1/gone.JPEG", "val/n2/v_1.JPEG", "val/n1/v_2.JPEG"])
    put_in_order(tmp_path, made(tmp_path, [*TRAIN, *FLAT, *TEST], listed=lambda side: listed))
    text = (tmp_path / ".prepare/differences.tsv").read_text()
    assert text == "missing\ttrain/n1/gone.JPEG\nbeyond\ttrain/n1/n1_1.JPEG\n"  # no list tells of test


def test_a_split_of_somebody_else_is_never_replaced(tmp_path: Path) -> None:
    source = made(tmp_path, [*TRAIN, *FLAT])
    (tmp_path / "val").mkdir()
    with pytest.raises(ConfigError, match=r"val: stands in .* already"):
        put_in_order(tmp_path, source)
    assert visible(tmp_path) == []


def test_a_split_joins_one_that_was_prepared_before(tmp_path: Path) -> None:
    put_in_order(tmp_path, made(tmp_path, TRAIN))
    clear_away(tmp_path)
    (tmp_path / ".prepare/journal.jsonl").unlink()
    put_in_order(tmp_path, made(tmp_path, FLAT))
    assert visible(tmp_path) == sorted([*TRAIN, "val/n1/v_2.JPEG", "val/n2/v_1.JPEG", "classes.tsv"])
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert [manifest.paths[index] for index in range(5)] == visible(tmp_path)[1:]
    (tmp_path / "elsewhere").mkdir()
    put_in_order(tmp_path / "elsewhere", made(tmp_path / "elsewhere", TRAIN[:2]))
    (tmp_path / "elsewhere/.prepare/journal.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"train lacks 1 classes that val has: n2"):
        put_in_order(tmp_path / "elsewhere", made(tmp_path / "elsewhere", FLAT))


def test_an_extracted_file_that_is_gone_stops_it(tmp_path: Path) -> None:
    source = made(tmp_path, [*TRAIN, *FLAT])
    journal, _ = extract(tmp_path, source.units)
    (tmp_path / ".prepare/tree" / FLAT[0]).unlink()
    with pytest.raises(StoppedError, match=r"val/n2/v_1.JPEG was written and is not there any more"):
        arrange(tmp_path, source, Rows(tmp_path, journal), journal)
    assert visible(tmp_path) == []
