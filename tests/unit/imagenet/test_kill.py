"""Killed, interrupted, out of space, two at once: the next start finds nothing that it must not believe."""

import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from src.imagenet.fashion.fashion_mnist import missing_splits
from tests.unit.imagenet.tiny import Tiny, assert_whole, write

ROOT = Path(__file__).resolve().parents[3]

# Runs `prepare` as a process of its own; what `progress` does is filled in.
ALONE = """
import os, pickle, resource, signal, sys
from pathlib import Path
from src.config import ConfigError
from src.imagenet.fashion.fashion_mnist import prepare
target, source, splits = pickle.load(sys.stdin.buffer)
calls = 0
def progress(done, total):
    global calls
    calls += 1
    {progress}
try:
    {before}
    prepare(target, source=source, progress=progress, splits=splits)
except ConfigError as error:
    sys.exit(str(error))
print("torch" in sys.modules)
"""


def start(tiny: Tiny, target: Path, *, progress: str = "pass", before: str = "pass") -> subprocess.Popen[bytes]:
    """Start ALONE. Its stdin stays open, for the progress to read."""
    script = ALONE.format(progress=progress, before=before)
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    pipe_of(process.stdin).write(pickle.dumps((target, tiny.source, tiny.splits)))
    pipe_of(process.stdin).flush()
    return process


def pipe_of(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


# Calls 1 and 2 are within train, 3 is before its rename; 4 is within val, 5 before its rename.
@pytest.mark.parametrize(("call", "published"), [(1, []), (3, []), (4, ["train"]), (5, ["train"])])
def test_after_a_kill_the_next_start_completes(tiny: Tiny, tmp_path: Path, call: int, published: list[str]) -> None:
    target = tmp_path / "target"
    process = start(tiny, target, progress=f"calls == {call} and os.kill(os.getpid(), signal.SIGKILL)")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert sorted(path.name for path in target.iterdir() if not path.name.startswith(".")) == published
    assert any(path.name.startswith(".partial-") for path in target.iterdir())
    assert [split.name for split in missing_splits(target, tiny.splits)] == [n for n in ("train", "val") if n not in published]
    write(tiny, target)
    assert_whole(tiny, target)


def test_an_interrupt_leaves_nothing_behind(tiny: Tiny, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tiny, tmp_path / "target", progress=interrupt)
    assert not (tmp_path / "target").exists()


def test_a_write_that_fails_says_so_and_leaves_nothing(tiny: Tiny, tmp_path: Path) -> None:
    process = start(tiny, tmp_path / "target", before="resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))")
    _, errors = process.communicate()
    assert process.returncode == 1
    assert f"target = '{tmp_path / 'target'}': cannot be written (File too large)." in errors.decode()
    assert "Traceback" not in errors.decode()
    assert not (tmp_path / "target").exists()


def test_a_second_process_waits_for_the_first_and_writes_nothing(tiny: Tiny, tmp_path: Path) -> None:
    target = tmp_path / "target"
    first = start(tiny, target, progress="calls == 1 and (print('begun', flush=True), sys.stdin.buffer.read())")
    assert pipe_of(first.stdout).readline() == b"begun\n"
    second = start(tiny, target, progress="sys.exit('wrote')")
    assert b"waiting for it" in pipe_of(second.stderr).readline()
    first.communicate()
    _, errors = second.communicate()
    assert (first.returncode, second.returncode, errors) == (0, 0, b"")
    assert_whole(tiny, target)


def test_torch_is_not_imported_when_the_files_are_there(tiny: Tiny, tmp_path: Path) -> None:
    output, errors = start(tiny, tmp_path / "target").communicate()
    assert (output, errors) == (b"False\n", b"")
