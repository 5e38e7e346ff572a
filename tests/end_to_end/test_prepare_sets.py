"""CIFAR-10, Imagenette and ImageFolders through the door: prepared, killed, repeated, refused, trained on."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from src.imagenet.sets.cifar import CLASSES
from tests.pictures import write_files
from tests.unit.imagenet.sets.small_sets import (
    batches,
    binary_files,
    class_folders,
    expected_pngs,
    imagenette_archive,
    imagenette_files,
    pickled_files,
    write_tar,
)

ROOT = Path(__file__).resolve().parents[2]
LISTS = ("classes.tsv", ".prepare/manifest.tsv.gz")
RunDoor = Callable[..., subprocess.CompletedProcess[str]]

# Runs the door in a process that kills itself when it is about to write its nth image, once the journal tells of a part of a unit.
# What is noted is noted soon, so that a second start goes on within a unit.
KILLED = """
import os, pathlib, runpy, signal, sys, time
from src.imagenet import extract, writing
journal = pathlib.Path(sys.argv[1], ".prepare/journal.jsonl")
extract._OFFER_PIECES, extract._SYNC_SECONDS, written, write = 7, 0.0, 0, writing.Writer.write
def counted(self, piece):
    global written
    written += 1
    if written == {at}:
        until = time.monotonic() + 20
        while {noted} and '"unit"' not in journal.read_text() and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, piece)
writing.Writer.write = counted
sys.argv = ["src.prepare", *sys.argv[2:]]
runpy.run_module("src.prepare", run_name="__main__")
"""


class Small(NamedTuple):
    """A small set, how it is asked for, and the number of its images by split."""

    arguments: tuple[str, ...]
    counts: Mapping[str, int]
    source: Path


@pytest.fixture
def prepare(run_door: RunDoor) -> RunDoor:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_door(*arguments, module="src.prepare")

    return run


def cifar10(folder: Path) -> Small:
    source = write_tar(folder / "cifar-10-python.tar.gz", pickled_files(batches(30)))
    return Small(("cifar10", f"source={source}", "checksum=off"), {"train": 150, "val": 30}, source)


def cifar10_folder(folder: Path) -> Small:
    source = write_files(folder, binary_files(batches(30))) / "cifar-10-batches-bin"
    return Small((f"source={source}", "checksum=off"), {"train": 150, "val": 30}, source)


def imagenette(folder: Path) -> Small:
    source = imagenette_archive(folder / "imagenette2-160.tgz", imagenette_files())
    return Small(("imagenette", f"source={source}", "checksum=off"), {"train": 40, "val": 10}, source)


def imagefolder(folder: Path) -> Small:
    source = class_folders(folder / "pets", {"cat": 40, "dog": 25})
    return Small((f"source={source}", "val_fraction=0.1"), {"train": 58, "val": 7}, source)


def packed_imagefolder(folder: Path) -> Small:
    made = imagefolder(folder)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(made.source.rglob("*.png"))}
    source = write_tar(folder / "pets.tgz", files)
    return Small((f"source={source}", "val_fraction=0.1"), made.counts, source)


SETS = {made.__name__: made for made in (cifar10, cifar10_folder, imagenette, imagefolder, packed_imagefolder)}


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def look(root: Path) -> dict[str, tuple[bytes, int]]:
    """Return path to content and time of modification, of all images that are published; the lists without a time."""
    seen = {str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns) for path in root.glob("[!.]*/*/*")}
    return seen | {name: ((root / name).read_bytes(), 0) for name in LISTS}


def state_of(source: Path) -> dict[str, tuple[bytes, int]]:
    files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def run_killed(target: Path, arguments: tuple[str, ...], at: int, *, noted: bool) -> None:
    command = [sys.executable, "-c", KILLED.format(at=at, noted=noted), str(target), *arguments, f"target={target}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert not {"train", "val"} & {path.name for path in target.iterdir()}


@pytest.mark.parametrize("name", SETS)
def test_killed_anywhere_it_ends_in_the_same_tree_and_a_third_start_does_nothing(
    name: str, prepare: RunDoor, tmp_path: Path
) -> None:
    small = SETS[name](tmp_path)
    before = state_of(small.source)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    result = result_of(prepare(*small.arguments, f"target={whole}"))
    assert {split: result[split] for split in small.counts} == dict(small.counts)
    total = sum(small.counts.values())
    run_killed(killed, small.arguments, 1, noted=False)
    run_killed(killed, small.arguments, total // 2, noted=True)
    lines = [json.loads(line) for line in (killed / ".prepare/journal.jsonl").read_text().splitlines() if line.endswith("}")]
    assert any(line["what"] == "unit" and line["pieces"] for line in lines)
    assert result_of(prepare(*small.arguments, f"target={killed}"))["status"] == "finished"
    assert look(killed) == look(whole)
    again = prepare(*small.arguments, f"target={killed}")
    assert result_of(again)["train"] == small.counts["train"]
    assert "is complete already: nothing to do." in again.stderr
    assert state_of(small.source) == before


def test_both_published_forms_of_cifar10_end_in_the_same_tree(prepare: RunDoor, tmp_path: Path) -> None:
    made = batches(20)
    for name, files in (("binary", binary_files(made)), ("python", pickled_files(made))):
        write_tar(tmp_path / name / f"cifar-10-{name}.tar.gz", files)
        result_of(prepare(f"source={tmp_path / name}", f"target={tmp_path / 'to' / name}", "checksum=off"))
    trees = [look(tmp_path / "to" / name) for name in ("binary", "python")]
    assert trees[0] == trees[1]
    assert trees[0].keys() == {*expected_pngs(made), *LISTS}
    words = "airplane automobile bird cat deer dog frog horse ship truck".split()  # noqa: SIM905
    lines = [f"{label}\t{CLASSES[label]}\t{word}" for label, word in enumerate(words)]
    assert trees[0]["classes.tsv"][0].decode().splitlines() == lines


def test_images_of_a_folder_are_hard_links_and_its_test_split_stays_apart(prepare: RunDoor, tmp_path: Path) -> None:
    source = class_folders(tmp_path / "pets" / "train", {"cat": 10, "dog": 10}).parent
    class_folders(source / "test", {"cat": 2})
    result = result_of(prepare(f"source={source}", f"target={tmp_path / 'to'}", "val_fraction=0.2"))
    assert (result["train"], result["val"], result["test"]) == (16, 4, 2)
    for path in source.rglob("*.png"):
        assert path.stat().st_nlink == 2
    assert (tmp_path / "to/test/cat/1.png").samefile(source / "test/cat/1.png")


def assert_refused(done: subprocess.CompletedProcess[str], target: Path, *parts: str) -> None:
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr
    assert not any((target / split).exists() for split in ("train", "val", "test"))


def test_archives_without_the_published_size_and_sum_are_refused(prepare: RunDoor, tmp_path: Path) -> None:
    target = tmp_path / "to"
    for small in (cifar10(tmp_path), imagenette(tmp_path)):
        arguments = small.arguments[:-1]
        assert_refused(prepare(*arguments, f"target={target}"), target, str(small.source), "not the published")
        assert not target.exists()
    small = imagenette(tmp_path)
    other = small.source.rename(tmp_path / "imagewoof2.tgz")  # no published size: only a sum that is given
    sums = tmp_path / "md5"
    sums.write_text(f"{hashlib.md5(b'other').hexdigest()}  {other.name}\n")
    wrong = prepare(f"source={other}", f"target={target}", f"checksum={sums}")
    assert_refused(wrong, target, f"{other}: has the md5 {hashlib.md5(other.read_bytes()).hexdigest()}, not")
    sums.write_text(f"{hashlib.md5(other.read_bytes()).hexdigest()}  {other.name}\n")
    assert result_of(prepare(f"source={other}", f"target={target}", f"checksum={sums}", "restart=true"))["status"] == "finished"


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_hostile_pickle_is_refused_and_not_run(prepare: RunDoor, tmp_path: Path) -> None:
    import pickle

    hostile = pickle.dumps({"data": Evil(tmp_path / "pwned"), "labels": []}, protocol=2)
    source = write_tar(
        tmp_path / "cifar-10-python.tar.gz", {**pickled_files(batches(10)), "cifar-10-batches-py/data_batch_3": hostile}
    )
    done = prepare("cifar10", f"source={source}", f"target={tmp_path / 'to'}", "checksum=off")
    assert_refused(done, tmp_path / "to", f"{source} holds cifar-10-batches-py/data_batch_3", "asks for posix.mkdir")
    assert not (tmp_path / "pwned").exists()


def test_an_imagefolder_without_val_is_refused_with_what_to_type(prepare: RunDoor, tmp_path: Path) -> None:
    source = class_folders(tmp_path / "pets", {"cat": 3, "dog": 1})
    done = prepare(f"source={source}", f"target={tmp_path / 'to'}")
    assert_refused(done, tmp_path / "to", "has no validation split. Add val_fraction=0.1")
    done = prepare(f"source={source}", f"target={tmp_path / 'to'}", "val_fraction=0.5")
    assert_refused(done, tmp_path / "to", "1 classes have one image only, and cannot be in both train and val: dog.")
    done = prepare(f"source={source}", f"target={tmp_path / 'to'}", "val_fraction=0.5", "dry_run=true")
    assert_refused(done, tmp_path / "to")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("name", ["cifar10", "imagenette"])
def test_a_bare_name_takes_what_lies_beside_the_target(name: str, prepare: RunDoor, tmp_path: Path) -> None:
    small = SETS[name](tmp_path)
    planned = prepare(name, f"target={tmp_path / name}", "checksum=off", "dry_run=true")
    assert result_of(planned)["status"] == "planned"
    assert not (tmp_path / name).exists()
    assert result_of(prepare(name, f"target={tmp_path / name}", "checksum=off"))["train"] == small.counts["train"]
    small.source.unlink()
    again = prepare(name, f"target={tmp_path / name}", "checksum=off")  # neither looks for it nor downloads it
    assert result_of(again)["train"] == small.counts["train"]


def test_a_bare_name_without_a_network_says_what_to_do(run_door: RunDoor, tmp_path: Path) -> None:
    offline = {"https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    done = run_door("cifar10", f"target={tmp_path / 'new' / 'cifar10'}", module="src.prepare", env=offline)
    assert_refused(done, tmp_path / "new" / "cifar10", "cannot be downloaded", "cifar-10-binary.tar.gz where there is a network")
    planned = run_door("cifar10", f"target={tmp_path / 'new' / 'cifar10'}", "dry_run=true", module="src.prepare", env=offline)
    assert result_of(planned)["status"] == "planned"
    assert "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz would be downloaded" in planned.stderr
    assert not (tmp_path / "new" / "cifar10" / "train").exists()


@pytest.mark.parametrize("name", ["cifar10", pytest.param("imagenette", marks=pytest.mark.long)])
def test_its_preset_trains_on_what_was_prepared(name: str, prepare: RunDoor, run_door: RunDoor, tmp_path: Path) -> None:
    small = SETS[name](tmp_path)
    target, runs = tmp_path / "data", f"runs_dir={tmp_path / 'runs'}"
    lacking = run_door(f"data={name}", f"data.path={target}", runs)
    assert lacking.returncode == 2
    assert f"Run python -m src.prepare {name}." in lacking.stderr
    result_of(prepare(*small.arguments, f"target={target}"))
    net = ("model=small_resnet", "model.stem_stride=2", "batch_size=10", "schedule.warmup_epochs=0", "epochs=1")
    result = result_of(run_door(f"data={name}", f"data.path={target}", *net, runs))
    assert result["status"] == "finished"
    assert result["val_loss"] > 0
