"""The folder appears whole or not at all, and nothing that src.export did not make is ever deleted."""

import ctypes
import errno
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from src.config import ConfigError
from src.exporting import folder as folders
from src.exporting.folder import new_folder, require_free
from src.files import TEMPORARY_PREFIX
from src.model_folder import FORMAT


def fill(target: Path, text: str, *, overwrite: bool = False) -> None:
    with new_folder(target, overwrite=overwrite) as folder:
        (folder / "config.json").write_text(json.dumps({"format": FORMAT, "text": text}))
        (folder / "other").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def text_of(target: Path) -> str:
    assert (target / "other").read_text() == json.loads((target / "config.json").read_text())["text"]
    return (target / "other").read_text()


def test_a_folder_takes_its_place_with_all_its_files(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "out"
    with new_folder(target, overwrite=False) as folder:
        (folder / "file").write_text("x")
        assert not target.exists()
    assert names(target) == ["file"]
    assert names(target.parent) == ["out"]
    umask = os.umask(0o022)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_fails_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), new_folder(tmp_path / "out", overwrite=False) as folder:
        (folder / "file").write_text("x")
        raise error
    assert names(tmp_path) == []


def test_a_target_that_exists_is_refused_and_an_empty_one_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out", "first")
    with pytest.raises(ConfigError, match="overwrite=true"), new_folder(tmp_path / "out", overwrite=False):
        pytest.fail("no work is done for a target that is taken")
    assert text_of(tmp_path / "out") == "first"


@pytest.mark.parametrize("one_step", [True, False, errno.EINVAL])
def test_an_earlier_export_is_replaced_where_that_is_asked_for(
    tmp_path: Path, one_step: bool | int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "out", "first")
    if one_step is not True:  # a C library without the call, or a file system that cannot exchange names
        monkeypatch.setattr(ctypes, "CDLL", failing_with(one_step or None))
    fill(tmp_path / "out", "second", overwrite=True)
    assert text_of(tmp_path / "out") == "second"
    assert names(tmp_path) == ["out"]


def failing_with(code: int | None) -> type:
    """Return a C library whose renameat2 fails so; None: that has none."""

    class Library:
        def __init__(self, name: None, *, use_errno: bool) -> None:
            if code is not None:
                self.renameat2 = self._fail

        def _fail(self, *arguments: object) -> int:
            assert code is not None
            ctypes.set_errno(code)
            return -1

    return Library


def test_an_earlier_export_stays_where_its_place_may_not_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "out", "first")
    monkeypatch.setattr(ctypes, "CDLL", failing_with(errno.EACCES))
    with pytest.raises(PermissionError):
        fill(tmp_path / "out", "second", overwrite=True)
    assert text_of(tmp_path / "out") == "first"
    assert names(tmp_path) == ["out"]


def test_an_earlier_export_stays_whole_where_the_next_one_fails(tmp_path: Path) -> None:
    fill(tmp_path / "out", "first")
    with pytest.raises(RuntimeError), new_folder(tmp_path / "out", overwrite=True) as folder:
        (folder / "other").write_text("second")
        raise RuntimeError
    assert text_of(tmp_path / "out") == "first"
    assert names(tmp_path) == ["out"]


def test_nothing_but_exports_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_text("dear")
    (tmp_path / "file").write_text("dear")
    fill(tmp_path / "out", "first")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("photos", "file", "link", "dangling"):
        with pytest.raises(ConfigError, match="and is not deleted"):
            require_free(tmp_path / name, overwrite=True)
        with pytest.raises(ConfigError, match="exists already"):
            require_free(tmp_path / name, overwrite=False)
    assert (tmp_path / "photos" / "1.jpg").read_text() == "dear"


def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists already"), new_folder(tmp_path / "out", overwrite=False) as folder:
        (folder / "other").write_text("mine")
        fill(tmp_path / "out", "theirs")
    assert text_of(tmp_path / "out") == "theirs"
    assert names(tmp_path) == ["out"]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Set target= to a place"):
        fill(tmp_path / "file" / "out", "x")
    with pytest.raises(ConfigError, match=r"cannot be looked into \(File name too long\)"):
        fill(tmp_path / ("x" * 300), "x")


def test_only_folders_of_this_target_are_tidied_up_and_the_process_keeps_its_umask(tmp_path: Path) -> None:
    for name in ("elsewhere", f"{TEMPORARY_PREFIX}other-folder"):
        (tmp_path / name).mkdir()
    (tmp_path / f"{TEMPORARY_PREFIX}out-file").write_text("dear")
    (tmp_path / f"{TEMPORARY_PREFIX}out-link").symlink_to(tmp_path / "elsewhere")
    before = names(tmp_path)
    mask = os.umask(0o027)
    try:
        fill(tmp_path / "out", "x")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(mask)
    assert names(tmp_path) == sorted([*before, "out"])
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750


def _hold(target: Path) -> None:
    with new_folder(target, overwrite=False) as folder:
        (folder / "half").write_text("x")
        time.sleep(600)


def test_a_killed_export_leaves_no_target_and_is_tidied_up_by_the_next_and_a_living_one_is_left_alone(tmp_path: Path) -> None:
    target, context = tmp_path / "out", multiprocessing.get_context("fork")
    killed, living = (context.Process(target=_hold, args=(target,)) for _ in range(2))
    killed.start()
    living.start()
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob(f"{TEMPORARY_PREFIX}*/half"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert killed.pid is not None
        os.kill(killed.pid, signal.SIGKILL)
        killed.join()
        assert not target.exists()
        assert len(names(tmp_path)) == 2
        fill(target, "next")
        left = [name for name in names(tmp_path) if name != "out"]
        assert len(left) == 1, "the living one's, and only that"
        assert text_of(target) == "next"
    finally:
        living.kill()
        living.join()


def test_all_files_are_made_to_last_before_the_folder_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    sync, rename = os.fsync, Path.rename

    def synced(descriptor: int) -> None:
        order.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        order.append("rename")
        return rename(path, target)

    monkeypatch.setattr(folders.os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    fill(tmp_path / "out", "x")
    before = order[: order.index("rename")]
    assert {"config.json", "other"} <= set(before)
    assert before[-1].startswith(TEMPORARY_PREFIX), "the folder itself, with its files' names"
    assert order[-1] == tmp_path.name
