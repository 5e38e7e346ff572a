"""A disk that fills up during a run: told, the checkpoint before is kept, tried again; the third failure in a row ends the run.

The disk is full for checkpoints alone: a limit on the size of files (RLIMIT_FSIZE) is set on the process that runs, and lifted.
"""

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from src.training.checkpoint_file import load_file
from tests.end_to_end.kill_harness import SYNTHETIC, Training, compare

SETTINGS = (*SYNTHETIC, "optim=sgd", "save_every_steps=20", "eval_every_epochs=9", "epochs=9")  # 180 steps
NOT_WRITTEN, GIVEN_UP = "not written: [Errno 27] File too large", "3 checkpoints in a row could not be written"
ROOM = 30_000  # bytes: enough for the log, the rows and the register, too little for a checkpoint
PATIENCE = 240


def until(run: Training, happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happens():
        assert run.is_running() and time.monotonic() < deadline, run.log.read_text()[-3000:]
        time.sleep(0.002)


def finish(run: Training) -> None:
    out, _ = run._process.communicate(timeout=PATIENCE)
    assert run._process.returncode == 0, run.log.read_text()[-3000:]
    assert json.loads(out.splitlines()[-1])["status"] == "finished"


def limit(pid: int, size: int) -> None:
    hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def fill_up(run: Training) -> int:
    """Start, and let the disk be full once there is a checkpoint. Returns the pid of rank 0."""
    run.start()
    until(run, (run.folder / "checkpoints" / "last.ckpt").exists)
    pid = int(json.loads((run.folder / "status.json").read_text())["pid"])
    limit(pid, ROOM)
    assert (run.folder / "checkpoints" / "last.ckpt").stat().st_size > ROOM
    return pid


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_full_disk_ends_the_run_at_the_third_failure_and_the_same_command_goes_on(tmp_path: Path, ranks: int) -> None:
    run, whole = (Training(tmp_path, name, SETTINGS, ranks) for name in ("full", "whole"))
    fill_up(run)
    run._process.communicate(timeout=PATIENCE)
    assert run._process.returncode == 1
    said = run.log.read_text()
    assert said.count(NOT_WRITTEN) >= 3 and GIVEN_UP in said, said
    assert "Traceback" not in said or ranks > 1, said  # torchrun's own
    assert json.loads((run.folder / "status.json").read_text())["status"] == "failed"
    kept = load_file(run.folder / "checkpoints" / "last.ckpt")["step"]
    assert kept < 180
    assert list((run.folder / "checkpoints").glob(".writing-*")) == []
    run.start()
    finish(run)
    whole.start()
    finish(whole)
    assert f"at step {kept} of 180" in run.log.read_text()
    assert compare(whole.folder, run.folder) == []


@pytest.mark.long
def test_a_disk_that_has_room_again_costs_a_warning(tmp_path: Path) -> None:
    run, whole = (Training(tmp_path, name, SETTINGS, 1) for name in ("full", "whole"))
    pid = fill_up(run)
    until(run, lambda: NOT_WRITTEN in run.log.read_text())
    limit(pid, resource.RLIM_INFINITY)
    finish(run)
    assert GIVEN_UP not in run.log.read_text()
    whole.start()
    finish(whole)
    assert compare(whole.folder, run.folder) == []
