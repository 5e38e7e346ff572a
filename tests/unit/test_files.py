"""A file is replaced whole or not at all, and a second name is a link or a copy."""

import errno
import os
import stat
from pathlib import Path

import pytest

from src import files
from src.files import TEMPORARY_PREFIX, link_atomically, remove_leftovers, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("data", [b"new", memoryview(b"new"), b""])
def test_content_is_replaced(tmp_path: Path, data: bytes | memoryview) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"something longer than the new")
    write_atomically(path, data)
    assert path.read_bytes() == bytes(data)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "fchmod", "replace"])
def test_a_failure_leaves_the_old_content_and_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_an_interrupt_leaves_the_old_content_and_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", b"new")
    assert names(tmp_path) == []


def test_the_data_is_on_disk_before_the_name_and_the_name_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power loss after the rename must find the content, not an empty file."""
    order: list[str] = []
    sync, replace = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else f"{os.fstat(descriptor).st_size} bytes"
        order.append(f"fsync {kind}")
        sync(descriptor)

    def note_replace(source: str, target: Path) -> None:
        order.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_atomically(tmp_path / "file", b"12345")
    assert order == ["fsync 5 bytes", "rename", "fsync folder"]
    order.clear()
    link_atomically(tmp_path / "file", tmp_path / "other")
    assert order == ["rename", "fsync folder"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_has_the_mode_that_the_user_set(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", b"x")
        assert os.umask(mask) == mask, "the process's mask is as it was"
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_a_second_name_is_the_same_file_and_outlives_the_first(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"content")
    second.write_bytes(b"in the way")
    link_atomically(first, second)
    assert first.samefile(second)
    write_atomically(first, b"newer")
    assert second.read_bytes() == b"content"
    assert names(tmp_path) == ["first", "second"]


def test_a_name_that_the_file_has_already_stays(tmp_path: Path) -> None:
    (tmp_path / "first").write_bytes(b"content")
    for _ in range(2):
        link_atomically(tmp_path / "first", tmp_path / "second")
    assert names(tmp_path) == ["first", "second"]


def test_without_hard_links_it_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "first").write_bytes(b"content")
    link_atomically(tmp_path / "first", tmp_path / "second")
    assert (tmp_path / "second").read_bytes() == b"content"
    assert not (tmp_path / "first").samefile(tmp_path / "second")
    assert names(tmp_path) == ["first", "second"]


def test_a_failed_link_leaves_the_old_name_and_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "first").write_bytes(b"content")
    (tmp_path / "second").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        link_atomically(tmp_path / "first", tmp_path / "second")
    assert (tmp_path / "second").read_bytes() == b"old"
    assert names(tmp_path) == ["first", "second"]


def test_leftovers_go_and_nothing_else(tmp_path: Path) -> None:
    for name in (f"{TEMPORARY_PREFIX}abc", "file", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / f"{TEMPORARY_PREFIX}folder").mkdir()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", f"{TEMPORARY_PREFIX}folder", "file"]
    remove_leftovers(tmp_path / "not there")


def test_the_temporary_file_stands_in_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename across file systems is a copy, which is not atomic."""
    seen: list[Path] = []
    monkeypatch.setattr(files.os, "replace", lambda source, target: seen.append(Path(source)))
    write_atomically(tmp_path / "file", b"x")
    assert [path.parent for path in seen] == [tmp_path]
    assert seen[0].name.startswith(TEMPORARY_PREFIX)
