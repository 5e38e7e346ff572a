"""Every system call of a save fails in turn, and at each the process dies in turn: something loadable always remains."""

import errno
import os
import resource
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from src import files
from src.training.checkpoint import Checkpoints, Kept
from src.training.checkpoint_file import CheckpointError, load_file

MakeState = Callable[..., dict[str, Any]]


def top(*steps: int) -> list[Kept]:
    return [Kept(f"net-epoch-{step:03d}-val_acc1-{step:.3f}.ckpt", step) for step in steps]


def save(checkpoints: Checkpoints, state: dict[str, Any]) -> None:
    """Save as a run whose accuracy rises: the best two are kept, so every save links, prunes and renames."""
    step = state["step"]
    checkpoints.save(state, top(*range(step, max(0, step - 2), -1)), top(step)[0])


def started(folder: Path, make_state: MakeState, *, steps: int = 3) -> Checkpoints:
    checkpoints = Checkpoints(folder)
    checkpoints.prepare()
    for step in range(1, steps + 1):
        save(checkpoints, make_state(step))
    return checkpoints


def reopened(folder: Path) -> Checkpoints:
    checkpoints = Checkpoints(folder)
    checkpoints.prepare()
    return checkpoints


def newest_step(folder: Path) -> int:
    path = reopened(folder).find_newest()
    assert path is not None
    return int(load_file(path)["step"])


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(files.TEMPORARY_PREFIX)]


def calls_of_a_save(system: Any, folder: Path, make_state: MakeState) -> list[str]:
    checkpoints = started(folder, make_state)
    system.arm(-1, "error")
    save(checkpoints, make_state(4))
    return list(system.seen)


def test_a_save_makes_every_kind_of_call(system: Any, tmp_path: Path, make_state: MakeState) -> None:
    assert set(calls_of_a_save(system, tmp_path, make_state)) == system.calls


def test_any_call_may_fail(system: Any, tmp_path: Path, make_state: MakeState, said: list[str]) -> None:
    calls = calls_of_a_save(system, tmp_path / "count", make_state)
    for number, name in enumerate(calls):
        folder = tmp_path / f"{number}-{name}"
        checkpoints = started(folder, make_state)
        said.clear()
        system.arm(number, "error")
        save(checkpoints, make_state(4))
        system.disarm()
        failed = any("checkpoint of step 4 not written: [Errno 28] No space left" in line for line in said)
        assert failed or name in {"link", "unlink"}, f"{name} failed, and nobody was told"
        assert leftovers(folder) == [] or name == "unlink"
        assert newest_step(folder) in ({3, 4} if failed else {4})
        assert load_file(folder / "last.ckpt")["step"] in (3, 4)
        save(checkpoints, make_state(5))  # the same process tries again
        said.clear()
        assert newest_step(folder) == 5
        (folder / "last.ckpt").unlink()
        assert newest_step(folder) in (3, 4, 5)
        assert load_file(folder / "previous.ckpt")["step"] in (3, 4)
        assert not any("damaged" in line for line in said), "a whole file was taken for a damaged one"


def test_the_process_may_die_at_any_call(system: Any, tmp_path: Path, make_state: MakeState, said: list[str]) -> None:
    calls = calls_of_a_save(system, tmp_path / "count", make_state)
    for number, name in enumerate(calls):
        folder = tmp_path / f"{number}-{name}"
        checkpoints = started(folder, make_state)
        system.arm(number, "kill")
        with pytest.raises(system.killed):
            save(checkpoints, make_state(4))
        system.disarm()
        assert newest_step(folder) in (3, 4)
        assert leftovers(folder) == []
        save(reopened(folder), make_state(5))
        assert newest_step(folder) == 5
        assert load_file(folder / "previous.ckpt")["step"] in (3, 4)
        assert {path.name for path in folder.glob("net-*")} <= {item.name for item in top(5, 4)}
        assert said == [], "a whole file was taken for a damaged one"


def test_the_process_may_die_in_one_save_and_again_in_the_next(
    system: Any, tmp_path: Path, make_state: MakeState, said: list[str]
) -> None:
    calls = calls_of_a_save(system, tmp_path / "count", make_state)
    instants = [number for number, name in enumerate(calls) if name == "replace"]
    for first in instants:
        for second in instants:
            folder = tmp_path / f"{first}-{second}"
            checkpoints = started(folder, make_state, steps=2)
            for step, number in ((3, first), (4, second)):
                system.arm(number, "kill")
                with pytest.raises(system.killed):
                    save(checkpoints, make_state(step))
                system.disarm()
                assert newest_step(folder) in range(2, step + 1)
                checkpoints = reopened(folder)
            save(checkpoints, make_state(5))
            (folder / "last.ckpt").write_bytes(b"")
            said.clear()
            previous = load_file(folder / "previous.ckpt")["step"]
            assert newest_step(folder) == previous in (2, 3, 4)
            assert not any("previous.ckpt is damaged" in line for line in said)


def test_the_first_save_of_all_may_die_too(system: Any, tmp_path: Path, make_state: MakeState) -> None:
    system.arm(-1, "kill")
    save(reopened(tmp_path / "count"), make_state(1))
    for number in range(len(system.seen)):
        folder = tmp_path / str(number)
        checkpoints = reopened(folder)
        system.arm(number, "kill")
        with pytest.raises(system.killed):
            save(checkpoints, make_state(1))
        system.disarm()
        found = reopened(folder).find_newest()
        assert found is None or load_file(found)["step"] == 1
        save(reopened(folder), make_state(2))
        assert newest_step(folder) == 2


def test_a_full_disk_is_told_and_leaves_nothing_and_the_third_time_is_an_error(
    tmp_path: Path, make_state: MakeState, said: list[str]
) -> None:
    checkpoints = started(tmp_path, make_state)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.ckpt")}
    large = make_state(4, large=torch.zeros(100_000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))  # what pytest writes fits, a checkpoint does not
    try:
        for _ in range(2):
            save(checkpoints, large)
            assert leftovers(tmp_path) == []
        with pytest.raises(
            CheckpointError, match=r"^3 checkpoints in a row could not be written to .*File too large.*free some space"
        ):
            save(checkpoints, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(said) == 3
    assert "checkpoint of step 4 not written: [Errno 27] File too large. The one before stays; free some space." in said[0]
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.ckpt")} == before
    assert newest_step(tmp_path) == 3


def test_failures_count_in_a_row_only(system: Any, tmp_path: Path, make_state: MakeState) -> None:
    checkpoints = started(tmp_path, make_state)
    for step in range(4, 10):
        system.arm(0 if step % 3 else -1, "error")
        save(checkpoints, make_state(step))
    assert newest_step(tmp_path) == 9


def test_where_there_are_no_hard_links_files_are_copied(
    tmp_path: Path, make_state: MakeState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    started(tmp_path, make_state)
    steps = {path.name: load_file(path)["step"] for path in tmp_path.glob("*.ckpt")}
    assert steps == {"last.ckpt": 3, "previous.ckpt": 2, "best.ckpt": 3, top(3)[0].name: 3, top(2)[0].name: 2}
    assert {path.stat().st_nlink for path in tmp_path.glob("*.ckpt")} == {1}
    assert newest_step(tmp_path) == 3


def test_what_a_dead_process_left_half_written_is_cleared(tmp_path: Path, make_state: MakeState) -> None:
    started(tmp_path, make_state)
    (tmp_path / f"{files.TEMPORARY_PREFIX}abc").write_bytes(b"half")
    (tmp_path / f"{files.TEMPORARY_PREFIX}folder").mkdir()  # cannot be unlinked: never a reason to fail
    assert newest_step(tmp_path) == 3
    assert leftovers(tmp_path) == [f"{files.TEMPORARY_PREFIX}folder"]


def test_a_save_that_died_before_it_named_the_best_is_finished_at_the_next_start(
    system: Any, tmp_path: Path, make_state: MakeState, said: list[str]
) -> None:
    """It may have been the last save of all: no other would do it."""
    calls = calls_of_a_save(system, tmp_path / "count", make_state)
    for kind, expected in (("kill", system.killed), ("error", None)):
        for number in range(len(calls)):
            folder = tmp_path / f"{kind}-{number}"
            checkpoints = started(folder, make_state)
            system.arm(number, kind)
            with pytest.raises(expected) if expected else nullcontext():
                save(checkpoints, make_state(4))
            system.disarm()
            again = reopened(folder)
            found = again.find_newest()
            assert found is not None
            step = load_file(found)["step"]
            again.finish(found, top(*range(step, step - 2, -1)), top(step)[0])
            named = {path.name: load_file(path)["step"] for path in folder.glob("*.ckpt") if path.name != "previous.ckpt"}
            assert named == {"last.ckpt": step, "best.ckpt": step} | {item.name: item.step for item in top(step, step - 1)}
            said.clear()
            assert newest_step(folder) == step
            assert said == [], "the register does not know what is there"


def test_a_whole_folder_is_not_written_to_at_a_start(system: Any, tmp_path: Path, make_state: MakeState) -> None:
    started(tmp_path, make_state)
    again = reopened(tmp_path)
    found = again.find_newest()
    assert found is not None
    system.arm(-1, "error")
    again.finish(found, top(3, 2), top(3)[0])
    assert system.seen == []
