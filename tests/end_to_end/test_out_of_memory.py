"""Memory runs out in the middle of a training: one message, and the command that it names goes on from the last checkpoint."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.training.conftest import NET, SMALL

Door = Callable[..., Any]


def settings_in(folder: Path) -> tuple[str, ...]:
    return (*SMALL, *NET, "epochs=2", "save_every_steps=3", f"runs_dir={folder}", "run_name=r")


def status_in(folder: Path) -> dict[str, Any]:
    status: dict[str, Any] = json.loads((folder / "r" / "status.json").read_text())
    return status


def test_in_a_step(tmp_path: Path, run_door: Door) -> None:
    fault = f"oom:step=7,marker={tmp_path / 'fired'}"
    done = run_door(fault, "--", *settings_in(tmp_path), module="tests.faults")
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    told = re.search(
        r"ERROR   (out of memory: up to \d+\.\d\d GiB were in use, of \d+\.\d\d GiB of cpu, "
        r"with 32 images a micro-batch, 1 a step\. "
        r"Start it again with (max_local_batch_size=16) (run_name=r): it goes on from the last checkpoint, .*)",
        done.stderr,
    )
    assert told is not None, done.stderr
    status = status_in(tmp_path)
    assert (status["status"], status["error"]) == ("failed", told[1])

    again = run_door(*settings_in(tmp_path)[:-1], told[2], told[3])
    assert again.returncode == 0, again.stderr
    assert "OTHER MICRO-BATCHES: max_local_batch_size was None" in again.stderr
    assert re.search(r"resuming from .*last\.ckpt at step 6 of 20", again.stderr)
    assert "32 images = 1 rank x 16 a micro-batch x 2 accumulated" in again.stderr
    assert status_in(tmp_path)["status"] == "finished"


def test_on_one_rank_of_two(tmp_path: Path, run_door: Door) -> None:
    fault = f"oom:rank=1,step=7,marker={tmp_path / 'fired'}"
    done = run_door(fault, "--", *settings_in(tmp_path), module="tests.faults", ranks=2)
    assert done.returncode != 0
    assert "with 16 images a micro-batch, 1 a step. Start it again with max_local_batch_size=8 run_name=r" in done.stderr
    assert status_in(tmp_path)["status"] == "failed"


def test_in_an_evaluation(tmp_path: Path, run_door: Door) -> None:
    fault = f"oom:at=evaluation,step=10,marker={tmp_path / 'fired'}"
    done = run_door(fault, "--", *settings_in(tmp_path), "eval_batch_size=20", module="tests.faults")
    assert done.returncode == 1, done.stderr
    assert "It was evaluating. Start it again with eval_batch_size=10 run_name=r" in done.stderr
    again = run_door(*settings_in(tmp_path), "eval_batch_size=10")
    assert again.returncode == 0, again.stderr
    assert re.search(r"resuming from .*last\.ckpt at step 10 of 20", again.stderr)
