"""Copies near the node: made once, whole or not at all, used again, and refused with the reason where there is no room."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src.config import ConfigError
from src.data import copying
from src.data.copying import Copy, copy_missing, folder_of_copies

ROOT = Path(__file__).resolve().parents[3]


def quiet(done: int, total: int) -> None:
    pass


@pytest.fixture
def copies(tmp_path: Path) -> list[Copy]:
    made = []
    for number in range(12):
        original = tmp_path / "from" / f"{number % 3}" / f"{number}.jpg"
        original.parent.mkdir(parents=True, exist_ok=True)
        original.write_bytes(bytes([number]) * (1000 * number))  # the first is empty
        made.append(Copy(str(original), str(tmp_path / "to" / f"{number % 3}" / f"{number}.jpg")))
    return made


def same(copies: list[Copy]) -> bool:
    return all(Path(copy.original).read_bytes() == Path(copy.target).read_bytes() for copy in copies)


def leftovers(tmp_path: Path) -> list[Path]:
    return list(tmp_path.rglob(".writing-*"))


def test_everything_arrives_and_nothing_else_is_left(tmp_path, copies):
    told: list[tuple[int, int]] = []
    assert copy_missing(copies, threads=3, progress=lambda done, total: told.append((done, total))) == 12
    assert same(copies)
    assert leftovers(tmp_path) == []
    assert told[-1] == (66_000, 66_000)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_what_is_there_is_used_again_and_what_changed_is_copied_anew(copies):
    copy_missing(copies, threads=2, progress=quiet)
    before = [os.stat(copy.target).st_ino for copy in copies]
    assert copy_missing(copies, threads=2, progress=quiet) == 0
    Path(copies[5].original).write_bytes(b"other")
    Path(copies[6].target).write_bytes(b"cut")
    os.unlink(copies[7].target)
    assert copy_missing(copies, threads=2, progress=quiet) == 3
    assert same(copies)
    after = [os.stat(copy.target).st_ino for copy in copies]
    assert [number for number in range(12) if before[number] == after[number]] == [0, 1, 2, 3, 4, 8, 9, 10, 11]


def test_a_copy_of_the_same_size_and_another_time_is_not_trusted(copies):
    copy_missing(copies, threads=1, progress=quiet)
    target = Path(copies[3].target)
    target.write_bytes(b"x" * 3000)
    assert copy_missing(copies, threads=1, progress=quiet) == 1
    assert same(copies)


def test_too_small_a_disk_is_told_with_both_figures(tmp_path, copies, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(copying.shutil, "disk_usage", lambda path: usage._replace(free=copying._RESERVE + 65_999))
    with pytest.raises(ConfigError, match=r"data\.copy_to.*are to be copied, but .* are free.*data\.copy_to=null"):
        copy_missing(copies, threads=1, progress=quiet)
    assert not (tmp_path / "to").exists()
    monkeypatch.setattr(copying.shutil, "disk_usage", lambda path: usage._replace(free=copying._RESERVE + 66_000))
    assert copy_missing(copies, threads=1, progress=quiet) == 12


def test_a_copy_that_reads_otherwise_than_what_was_written_is_refused(tmp_path, copies, monkeypatch):
    stream = copying._stream

    def flipped(*arguments):
        digest = stream(*arguments)
        arguments[1].seek(0)
        arguments[1].write(b"?")
        return digest

    monkeypatch.setattr(copying, "_stream", flipped)
    with pytest.raises(ConfigError, match=r"reads otherwise than what was written"):
        copy_missing(copies[1:2], threads=1, progress=quiet)
    assert not Path(copies[1].target).exists()
    assert leftovers(tmp_path) == []


def test_a_vanished_original_is_named(tmp_path, copies, monkeypatch):
    stream = copying._stream

    def vanish(original, *rest):
        os.unlink(original)
        return stream(original, *rest)

    monkeypatch.setattr(copying, "_stream", vanish)
    with pytest.raises(ConfigError, match=r"from/1/1\.jpg could not be copied: No such file"):
        copy_missing(copies[1:2], threads=1, progress=quiet)
    assert leftovers(tmp_path) == []


COPYING = """
import sys
from pathlib import Path
from src.data.copying import Copy, copy_missing
source, target = sys.argv[1:]
copy_missing([Copy(source, target)], threads=1, progress=lambda done, total: print(done, flush=True))
"""


def copying_process(source: Path, target: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COPYING, str(source), str(target)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    file = tmp_path / "train.beton"
    file.write_bytes(os.urandom(2**20) * 160)
    return file


def test_a_killed_copy_leaves_no_half_file_and_the_next_one_mends_it(tmp_path, large):
    target = tmp_path / "near" / "train.beton"
    process = copying_process(large, target)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not target.exists()
    assert len(leftovers(tmp_path)) == 1
    assert copy_missing([Copy(str(large), str(target))], threads=1, progress=quiet) == 1
    assert target.read_bytes() == large.read_bytes()
    assert leftovers(tmp_path) == []


def test_two_jobs_that_want_the_same_copy_share_it(tmp_path, large):
    target = tmp_path / "near" / "train.beton"
    first = copying_process(large, target)
    assert first.stdout is not None
    first.stdout.readline()
    assert copy_missing([Copy(str(large), str(target))], threads=1, progress=quiet) == 1  # it waited, and found it there
    assert first.wait() == 0
    first.stdout.close()
    assert target.read_bytes() == large.read_bytes()
    assert leftovers(tmp_path) == []


def test_an_interruption_ends_it_at_once(tmp_path, large):
    target = tmp_path / "near" / "train.beton"

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        copy_missing([Copy(str(large), str(target))], threads=1, progress=interrupt)
    assert time.monotonic() - start < 5
    assert not target.exists()
    assert leftovers(tmp_path) == []


def test_copies_of_different_folders_do_not_meet(tmp_path):
    for name in ("a/train", "b/train"):
        (tmp_path / name).mkdir(parents=True)
    places = {folder_of_copies(tmp_path / "to", tmp_path / name) for name in ("a/train", "b/train")}
    assert len(places) == 2
    assert all(place.name.startswith("train-") for place in places)
