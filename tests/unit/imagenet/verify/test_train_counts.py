"""Images a class by the devkit's table, which the preparation keeps: what lacks images is named with how many it should have."""

import shutil
from pathlib import Path

import pytest

from src.imagenet.train_counts import read_train_counts, write_train_counts
from src.imagenet.verify.report import Finding, Report
from tests.scale_models import LAYOUTS, scale_model, write_devkit
from tests.unit.imagenet.layouts.run import found_in
from tests.unit.imagenet.verify.conftest import WNIDS, Made, problems

CHECK = "train: images a class"
COUNTS = dict.fromkeys(WNIDS, 2)
FIRST, SECOND, THIRD = WNIDS[:3]


def told(report: Report) -> Finding:
    return next(finding for finding in report.findings if finding.check == CHECK)


def test_what_is_written_is_read_and_nothing_is_not_written(tmp_path: Path):
    (tmp_path / ".prepare").mkdir()
    assert read_train_counts(tmp_path) is None
    write_train_counts(tmp_path, {})
    assert read_train_counts(tmp_path) is None
    write_train_counts(tmp_path, {"b": 1300, "a": 732})
    assert read_train_counts(tmp_path) == {"a": 732, "b": 1300}
    assert (tmp_path / ".prepare/train_counts.tsv").read_bytes() == b"a\t732\nb\t1300\n"
    write_train_counts(tmp_path, {})
    assert read_train_counts(tmp_path) is None


@pytest.mark.parametrize("layout", ["official", "folders with devkit", "folders with the devkit's folder", "imagefolder"])
def test_every_layout_that_a_devkit_lies_in_tells_its_table(tmp_path: Path, layout: str):
    model = scale_model(12)
    source = LAYOUTS[layout](tmp_path, model)
    if layout == "imagefolder":
        assert found_in(source).train_counts is None
        write_devkit(source / "ILSVRC2012_devkit_t12.tar.gz", model)
    tell = found_in(source).train_counts
    assert tell is not None and tell() == dict.fromkeys(model.wnids, 3)
    if layout == "imagefolder":
        (source / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"of no use")
        assert tell() == {}, "what is not needed refuses nothing"


def test_what_is_divided_anew_has_other_numbers(tmp_path: Path):
    model = scale_model(12)
    shutil.rmtree(LAYOUTS["imagefolder"](tmp_path, model) / "val")
    write_devkit(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", model)
    assert found_in(tmp_path, "val_fraction=0.4").train_counts is None


def test_each_class_is_held_against_its_own_number(made: Made):
    write_train_counts(made.root, COUNTS)
    for expect in ("imagenet", "any"):
        report = made.verify(0, expect)
        assert report.ok and told(report).verdict == "ok" and "24 classes" in told(report).found
    (made.root / f"train/{FIRST}/{FIRST}_1.JPEG").unlink()
    (made.root / f"train/{SECOND}/{SECOND}_7.JPEG").write_bytes(b"x")
    report = made.verify(0)
    assert problems(report) == {CHECK}, "the sum is right, and so is the range"
    assert told(report).offenders == [f"train/{FIRST}: 1 of 2", f"train/{SECOND}: 3 of 2"]
    assert problems(made.verify(0, "any")) == {CHECK}


def test_a_class_that_is_gone_has_none_of_its_images_and_any_set_may_leave_classes_out(made: Made):
    write_train_counts(made.root, COUNTS)
    for split in ("train", "val"):
        shutil.rmtree(made.root / split / THIRD)
    (made.root / "classes.tsv").unlink()
    assert told(made.verify(0)).offenders == [f"train/{THIRD}: 0 of 2"]
    report = made.verify(0, "any")
    assert report.ok and "23 classes" in told(report).found


def test_without_a_table_nothing_is_asked_of_any_set_and_imagenet_is_told_so(made: Made):
    assert told(made.verify(0)).verdict == "not checked"
    assert CHECK not in {finding.check for finding in made.verify(0, "any").findings}


def test_a_table_of_another_set_is_not_believed(made: Made):
    write_train_counts(made.root, COUNTS | {FIRST: 3})
    report = made.verify(0)
    assert report.ok and told(report).verdict == "not checked" and "adds up to 49, and not to 48" in told(report).found


def test_train_that_is_not_there_is_not_compared(made: Made):
    write_train_counts(made.root, COUNTS)
    shutil.rmtree(made.root / "train")
    assert problems(made.verify(0)) == {"splits"}


@pytest.mark.parametrize("line", ["n1", "n1\t-1", "n1\tmany", "\t3", "a\t1\na\t1", "n1\t\u0663", f"n1\t{'9' * 5000}", "n1\t1\t1"])
def test_a_damaged_table_is_a_problem_that_names_the_line(made: Made, line: str):
    (made.root / ".prepare/train_counts.tsv").write_text(f"{line}\n")
    report = made.verify(0)
    assert problems(report) == {CHECK} and "line " in told(report).found and len(told(report).found) < 400
