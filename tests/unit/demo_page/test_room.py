"""Visitors' uploads do not outlive the page, even where it is killed, and nothing else is deleted for that."""

import fcntl
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from src.demo_page import server

PREFIX = "imagenet-trainer-demo-"


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where rooms are made, for this test alone."""
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")  # so that it is put back
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path


def serve() -> None:
    with server.room() as folder:
        (folder / "upload").mkdir()
        (folder / "upload" / "face.jpg").write_bytes(b"dear")
        time.sleep(600)


def wait_for(count: int, parent: Path) -> set[Path]:
    deadline = time.monotonic() + 60
    while len(found := list(parent.glob("*/upload/face.jpg"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return {path.parents[1] for path in found}


def test_what_a_killed_page_left_is_deleted_by_the_next_and_a_living_ones_room_stays(parent: Path) -> None:
    context = multiprocessing.get_context("fork")
    living, killed = (context.Process(target=serve) for _ in range(2))
    living.start()
    try:
        kept = wait_for(1, parent)
        killed.start()
        (left,) = wait_for(2, parent) - kept
        assert killed.pid is not None
        os.kill(killed.pid, signal.SIGKILL)
        killed.join()
        assert (left / "upload" / "face.jpg").exists()
        with server.room() as own:
            assert os.environ["GRADIO_TEMP_DIR"] == str(own)
            assert set(parent.iterdir()) == kept | {own}
            server.remove_leftovers(parent)
            assert set(parent.iterdir()) == kept | {own}
        assert set(parent.iterdir()) == kept
        assert wait_for(1, parent) == kept
    finally:
        for process in (living, killed):
            if process.pid is not None:
                process.kill()
                process.join()
    with server.room():
        pass
    assert list(parent.iterdir()) == []


def test_what_is_not_a_room_of_this_user_is_left_alone(parent: Path) -> None:
    for name, mode in (("demo-s0", 0o700), (f"{PREFIX}shared", 0o755), ("elsewhere", 0o700)):
        (parent / name).mkdir(mode)
        (parent / name / "file").write_text("dear")
    (parent / f"{PREFIX}link").symlink_to(parent / "elsewhere")
    (parent / f"{PREFIX}file").write_text("dear")
    before = sorted(parent.rglob("*"))
    with server.room() as folder:
        assert folder.name.startswith(PREFIX)
    assert sorted(parent.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_another_users_room_is_left_alone(parent: Path) -> None:
    for name, user in (("other", 12345), ("own", os.geteuid())):
        (parent / f"{PREFIX}{name}").mkdir(0o700)
        os.chown(parent / f"{PREFIX}{name}", user, -1)
    server.remove_leftovers(parent)
    assert [path.name for path in parent.iterdir()] == [f"{PREFIX}other"]


def _deleted(path: str, hold: list[int]) -> None:
    server.remove_leftovers(Path(path).parent)


def _held(path: str, hold: list[int]) -> None:
    hold.append(os.open(path, os.O_RDONLY))
    fcntl.flock(hold[-1], fcntl.LOCK_EX)


@pytest.mark.parametrize("meanwhile", [_deleted, _held])
def test_a_room_that_another_start_takes_for_a_leftover_is_made_once_more(
    parent: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[str, list[int]], None]
) -> None:
    """Between its making and its lock: deleted already, or about to be."""
    make, made, hold = tempfile.mkdtemp, list[str](), list[int]()

    def mkdtemp(*, dir: Path, prefix: str) -> str:
        made.append(make(dir=dir, prefix=prefix))
        if len(made) == 1:
            meanwhile(made[0], hold)
        return made[-1]

    monkeypatch.setattr(server.tempfile, "mkdtemp", mkdtemp)
    with server.room() as folder:
        assert len(made) == 2 and str(folder) == made[1]
        server.remove_leftovers(parent)
        assert folder.is_dir()
    for descriptor in hold:
        os.close(descriptor)


def test_a_room_that_is_deleted_in_the_moment_of_its_lock_is_made_once_more(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, real = list[str](), os.open

    def open_(path: Path, flags: int) -> int:
        descriptor = real(path, flags)
        opened.append(str(path))
        if len(opened) == 1:
            path.rmdir()
        return descriptor

    with monkeypatch.context() as patch:
        patch.setattr(server.os, "open", open_)
        folder, held = server._make_room(parent)
    assert folder.is_dir() and len(opened) == 2
    os.close(held)


def test_where_there_are_no_locks_there_is_a_room_and_nothing_is_deleted(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (parent / f"{PREFIX}unknown").mkdir(0o700)

    def none(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(server.fcntl, "flock", none)
    with server.room() as folder:
        assert folder.is_dir()
    assert [path.name for path in parent.iterdir()] == [f"{PREFIX}unknown"]
