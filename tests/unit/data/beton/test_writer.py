"""The writer: what it promises of the file, and of what happens when it cannot finish."""

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from src.batch import DataError, Encoded
from src.data.beton import writer as writer_module
from src.data.beton.pages import Pages
from src.data.beton.sidecar import sidecar_path
from src.data.beton.writer import write_beton
from tests.pictures import encode
from tests.unit.data.beton.plain import PAGE, Listed, Sample, opened, patch, quiet, samples, stored_bytes

CONTENT = samples()
OPTIONS = {"workers": 2, "progress": quiet, "jpeg_bytes": "original", "page_size": PAGE}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "train.beton"


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_samples_labels_and_names_are_those_of_the_source(target):
    told = []
    written = write_beton(Listed(CONTENT), target, **OPTIONS | {"progress": lambda *now: told.append(now)})
    source = opened(target)
    assert source.labels.tolist() == [sample.label for sample in CONTENT]
    assert source.classes == ("ant", "bee", "ça")
    for index, sample in enumerate(CONTENT):
        assert source.sizes[index].tolist() == [sample.width, sample.height]
        if isinstance(sample.data, bytes):
            assert bytes(source.read(index).data) == sample.data
    assert written == (target, 12, 0, 9, 0, target.stat().st_size, source.verify(), [])
    assert left_in(target.parent) == ["train.beton", "train.beton.json"]
    assert [now[:2] for now in told] == [(number, 12) for number in (*range(1, 13), 12)]
    assert all(0 < size <= written.bytes for _, _, size in told)


def test_the_sidecar_says_how_it_was_made(target):
    written = write_beton(Listed(CONTENT), target, **OPTIONS, max_resolution=30, on_bad="skip")
    told = json.loads(sidecar_path(target).read_text())
    assert told["verified"] is True
    assert (told["samples"], told["bytes"], told["sha256"]) == (12, written.bytes, written.sha256)
    assert told["settings"] == {
        "max_resolution": 30, "jpeg_quality": 90, "mode": "jpg", "raw_fraction": 0.5, "jpeg_bytes": "original", "page_size": PAGE
    }  # fmt: skip
    assert written.shrunk == sum(max(sample.width, sample.height) > 30 for sample in CONTENT)


def test_the_same_source_gives_the_same_file_with_any_number_of_workers(target):
    files = set()
    for workers in (1, 3):
        files.add(write_beton(Listed(CONTENT), target, **OPTIONS | {"workers": workers, "mode": "proportion"}).sha256)
    assert len(files) == 1


BROKEN = [sample if number not in (2, 9) else sample._replace(data=encode("jpeg")[:-300]) for number, sample in enumerate(CONTENT)]


def test_bad_images_are_all_found_and_nothing_is_written(target):
    with pytest.raises(DataError) as refusal:
        write_beton(Listed(BROKEN, bad=[5]), target, **OPTIONS)
    assert str(refusal.value).startswith("3 of 12 images are bad: train/2.JPEG cannot be decoded: image file is truncated")
    assert "; train/5.JPEG cannot be read: no such file.; train/9.JPEG cannot be decoded" in str(refusal.value)
    assert left_in(target.parent) == []


def test_bad_images_that_are_skipped_are_listed_and_shift_nothing(target):
    written = write_beton(Listed(BROKEN, bad=[5]), target, **OPTIONS, on_bad="skip", mode="proportion")
    kept = [number for number in range(12) if number not in (2, 5, 9)]
    assert [name for name, _ in written.skipped] == ["train/2.JPEG", "train/5.JPEG", "train/9.JPEG"]
    assert json.loads(sidecar_path(target).read_text())["skipped"] == [list(pair) for pair in written.skipped]
    source = opened(target)
    assert source.labels.tolist() == [CONTENT[number].label for number in kept]
    raw = writer_module.stored_raw(writer_module.Recipe(500, 90, "proportion", 0.5, "original"), 12)
    assert [source.read(row).kind == "raw" for row in range(9)] == raw[kept].tolist()


def test_a_source_without_a_sound_image_is_refused(target):
    with pytest.raises(DataError, match="there is no image to write"):
        write_beton(Listed([]), target, **OPTIONS)
    with pytest.raises(DataError, match=r"all 2 images are bad, such as train/0\.JPEG: cannot be read"):
        write_beton(Listed(CONTENT[:2], bad=[0, 1]), target, **OPTIONS, on_bad="skip")
    assert left_in(target.parent) == []


class Counted(Listed):
    """Counts reads, and fails at one."""

    def __init__(self, *args, fails_at: int = -1) -> None:
        super().__init__(*args)
        self.reads, self.fails_at, self.lock = 0, fails_at, threading.Lock()

    def read(self, index: int) -> Encoded:
        with self.lock:
            self.reads += 1
        if index == self.fails_at:
            raise RuntimeError("a bug")
        return super().read(index)


def test_few_samples_are_in_flight(target):
    source, ahead = Counted(CONTENT * 20), []
    write_beton(
        source, target, **OPTIONS | {"progress": lambda done, total, size: ahead.append(source.reads - done), "mode": "raw"}
    )
    assert max(ahead[:240]) <= 2 * 4


def test_an_error_in_a_worker_ends_it_at_once_and_names_the_sample(target):
    source = Counted(CONTENT * 20, fails_at=30)
    with pytest.raises(RuntimeError, match="a bug") as error:
        write_beton(source, target, **OPTIONS, mode="raw")
    assert error.value.__notes__ == ["while encoding train/30.JPEG"]
    assert source.reads < 60
    assert left_in(target.parent) == []


@pytest.mark.parametrize("at", [1, 6, 12, 13])
def test_an_interrupt_leaves_the_old_pair_whole(target, at):
    write_beton(Listed(CONTENT), target, **OPTIONS)
    before = {path: path.read_bytes() for path in (target, sidecar_path(target))}
    threads, calls = threading.active_count(), []

    def interrupt(*now: int) -> None:
        calls.append(now)
        if len(calls) == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_beton(Listed(CONTENT[::-1]), target, **OPTIONS | {"progress": interrupt})
    assert {path: path.read_bytes() for path in target.parent.iterdir()} == before
    assert threading.active_count() == threads


def test_too_small_a_disk_is_noticed_before_anything_is_written(target, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 3000))
    for mode in ("jpg", "raw"):
        with pytest.raises(OSError, match=r"train\.beton will be about 0\.0 GB, but only 0\.0 GB are free\. Free some") as error:
            write_beton(Listed(CONTENT), target, **OPTIONS | {"mode": mode})
        assert error.value.errno == errno.ENOSPC
    assert left_in(target.parent) == []


@pytest.mark.parametrize("part", ["place", "finish"])
def test_a_disk_that_fills_up_is_told_and_nothing_is_left(target, monkeypatch, part):
    real, calls = getattr(Pages, part), []

    def full(self, *args):
        calls.append(part)
        if len(calls) == 5 or part == "finish":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, *args)

    monkeypatch.setattr(Pages, part, full)
    with pytest.raises(OSError, match=r"the disk of .*train\.beton is full \(No space left on device; .* GB are free\)") as error:
        write_beton(Listed(CONTENT), target, **OPTIONS)
    assert error.value.errno == errno.ENOSPC
    assert left_in(target.parent) == []


@pytest.mark.parametrize("what", ["image", "label"])
def test_a_disk_that_gives_back_other_bytes_is_noticed(target, monkeypatch, what):
    real = Pages.finish

    def unsound(self, rows, table):
        size = real(self, rows, table)
        patch(target.with_name(".writing-train.beton"), 2 * PAGE - 1 - PAGE + 200 if what == "image" else 24 + 2082 + 16, "<B", 9)
        return size

    monkeypatch.setattr(Pages, "finish", unsound)
    with pytest.raises(DataError, match=r"1 samples were read back otherwise than they were written, the first (#0|labels)"):
        write_beton(Listed(CONTENT), target, **OPTIONS)
    assert left_in(target.parent) == []


def test_two_writers_of_one_file_do_not_mix(target):
    temporary = target.with_name(".writing-train.beton")
    with open(temporary, "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OSError, match=r"another process is writing .*train\.beton") as error:
            write_beton(Listed(CONTENT), target, **OPTIONS)
        assert error.value.errno == errno.EBUSY
        assert temporary.exists()


def test_what_a_killed_writer_left_is_written_over(target):
    target.with_name(".writing-train.beton").write_bytes(b"x" * 10 * PAGE)
    write_beton(Listed(CONTENT), target, **OPTIONS)
    assert left_in(target.parent) == ["train.beton", "train.beton.json"]
    assert target.stat().st_size < 3 * PAGE
    opened(target).verify()


def test_a_crash_between_the_two_renames_is_noticed(target, monkeypatch):
    """Also with pixels, where all sizes, pointers and labels are the same."""
    write_beton(Listed(CONTENT), target, **OPTIONS | {"mode": "raw"})
    other = [Sample(sample.data if isinstance(sample.data, bytes) else 255 - sample.data, *sample[1:]) for sample in CONTENT]

    def crash(*names: object) -> None:
        raise OSError(errno.EIO, "crash")

    with monkeypatch.context() as patched:
        patched.setattr(writer_module.os, "replace", lambda old, new: crash() if new == target else Path(old).rename(new))
        with pytest.raises(OSError, match="crash"):
            write_beton(Listed(other), target, **OPTIONS | {"mode": "raw"})
    with pytest.raises(DataError, match=r"does not belong to train\.beton"):
        opened(target)
    write_beton(Listed(other), target, **OPTIONS | {"mode": "raw"})
    assert stored_bytes(opened(target).read(3)) == other[3].data.tobytes()


def write_version(target: Path, version: int) -> None:
    content = [sample._replace(label=(sample.label + version) % 3) for sample in CONTENT * 10]
    write_beton(Listed(content), target, **OPTIONS)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_writer_killed_at_any_instant_leaves_no_half_file(target):
    """Forty kills: what stands under the name is the old file or the new one, or is refused as not belonging to its sidecar."""
    write_version(target, 0)
    started = time.monotonic()
    write_version(target, 0)
    whole = time.monotonic() - started
    rng, context = np.random.default_rng(3), multiprocessing.get_context("fork")
    newest, outcomes = 0, {"old": 0, "new": 0, "refused": 0}
    for version in range(1, 41):
        child = context.Process(target=write_version, args=(target, version))
        child.start()
        child.join(float(rng.uniform(0, 4 * whole)))
        if child.exitcode is None:
            os.kill(child.pid, signal.SIGKILL)
        child.join(60)
        try:
            source = opened(target)
            source.verify()
            labels = source.labels.tolist()
            found = next(v for v in (newest, version) if labels == [(s.label + v) % 3 for s in CONTENT * 10])
            outcomes["new" if found == version else "old"] += 1
            newest = found
        except DataError as error:
            assert "does not belong to train.beton" in str(error)
            outcomes["refused"] += 1
        assert all(name.startswith((".writing-", "train.beton")) for name in left_in(target.parent))
    assert min(outcomes["old"], outcomes["new"]) > 3, (outcomes, whole)
