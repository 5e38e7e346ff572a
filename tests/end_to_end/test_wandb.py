"""track=wandb with the real package, offline: one complete run over several processes, and its death costs nothing."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from src.tracking.jsonl import read_rows
from src.training.checkpoint_file import load_file
from tests.conftest import LAUNCHER_VARIABLES, ROOT
from tests.end_to_end.kill_harness import SYNTHETIC, without_times
from tests.processes import children
from tests.training.conftest import differing
from tests.wandb_file import history, records

pytest.importorskip("wandb")
SETTINGS = (
    *SYNTHETIC,
    *("model=small_resnet", "model.width=4", "model.stem_stride=2", "batch_size=32", "epochs=8", "schedule.warmup_epochs=1"),
    *("track.log_every_steps=4", "keep_top_k=1", "eval_batch_size=100", "save_every_steps=50"),
)
WANDB = ("track=wandb", "track.mode=offline", "track.project=tests", "track.tags=[a,b]")


class Training:
    """One run, as a user starts it."""

    def __init__(self, folder: Path, name: str, *more: str) -> None:
        self.folder, self._log = folder / name, folder / f"{name}.log"
        self._command = [sys.executable, "-m", "src.train", *SETTINGS, *more, f"runs_dir={folder}", f"run_name={name}"]

    def start(self) -> "Training":
        kept = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
        settings = kept | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(self._command, cwd=ROOT, env=settings, stdout=subprocess.PIPE, stderr=log, text=True)
        return self

    def wait_until_sending(self) -> None:
        """Wait until wandb's process has sent a row. The training stands still for it, so that it is not over by then."""
        self._wait(lambda: len(read_rows(self.folder / "metrics.jsonl")) > 2)
        self.signal(signal.SIGSTOP)
        self._wait(lambda: self.sent().get("train", 0) > 0)
        self.signal(signal.SIGCONT)

    def _wait(self, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not until():
            assert self._process.poll() is None and time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.01)

    def sent(self) -> dict[str, Any]:
        with contextlib.suppress(OSError):
            return dict(json.loads((self.folder / "wandb" / "sent.json").read_text()))
        return {}

    def services(self) -> list[int]:
        """Return wandb's service processes: children of the children of the training."""
        return [service for child in children(self._process.pid) for service in children(child)]

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def finish(self) -> tuple[int, dict[str, Any], str]:
        """Return the exit code, stdout's last line, and stderr."""
        out, _ = self._process.communicate(timeout=240)
        assert out.count("\n") == 1, out
        return self._process.returncode, json.loads(out), self._log.read_text()


def warnings(text: str) -> list[str]:
    return re.findall(r"^\S+ WARNING .*$", text, re.MULTILINE)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An undisturbed run without wandb."""
    training = Training(tmp_path_factory.mktemp("whole"), "whole").start()
    assert training.finish()[0] == 0
    yield training.folder


def assert_same(whole: Path, other: Path) -> None:
    states = [load_file(run / "checkpoints" / "last.ckpt") for run in (whole, other)]
    for state in states:  # who is told of a run is no part of it
        state["config"]["run_name"] = state["config"]["runs_dir"] = state["config"]["track"] = None
    assert not differing(*states)
    rows = [[without_times(row) for row in read_rows(run / "metrics.jsonl")] for run in (whole, other)]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_a_stopped_and_resumed_run_is_one_complete_run_at_wandb(whole: Path, tmp_path: Path) -> None:
    training = Training(tmp_path, "resumed", *WANDB).start()
    training.wait_until_sending()
    training.signal(signal.SIGTERM)
    asked = time.monotonic()
    code, outcome, text = training.finish()
    assert (code, outcome["status"]) == (75, "preempted"), text
    assert time.monotonic() - asked < 20, "torchrun and Slurm leave 30 seconds"
    code, outcome, text = training.start().finish()
    assert (code, outcome["status"]) == (0, "finished"), text
    assert_same(whole, training.folder)
    assert f"wandb sync {training.folder}" in text and not warnings(text)

    assert len(list((training.folder / "wandb").glob("offline-run-*"))) == 2
    sent = history(training.folder / "wandb")
    rows = read_rows(training.folder / "metrics.jsonl")
    steps = sorted({row["step"] for row in rows})
    assert [row["step"] for row in sent] == steps, "each step once, in order"
    of_step = {row["step"]: row for row in sent}
    for row in rows:
        for key, value in row.items():
            name = key.replace("train/", "train_epoch/") if row["kind"] == "epoch" else key
            if key not in ("kind", "step"):
                assert of_step[row["step"]][name] == pytest.approx(value), (row["step"], key)
    runs = [record.run for record in records(training.folder / "wandb") if record.WhichOneof("record_type") == "run"]
    assert {run.run_id for run in runs} == {training.sent()["id"]}
    assert {(run.display_name, run.project, *run.tags) for run in runs} == {("resumed", "tests", "a", "b")}
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["optim.peak_lr"] == 0.1 and not {"runs_dir", "resume", "data.workers"} & config.keys()
    assert not any(run.host or run.git.remote_url or run.git.commit for run in runs)


@pytest.mark.slow
def test_its_service_killed_in_the_middle_costs_one_warning(whole: Path, tmp_path: Path) -> None:
    training = Training(tmp_path, "killed", *WANDB).start()
    training.wait_until_sending()
    services = training.services()
    assert services
    for pid in services:
        os.kill(pid, signal.SIGKILL)
    code, outcome, text = training.finish()
    assert (code, outcome["status"]) == (0, "finished"), text
    assert len(warnings(text)) == 1 and "wandb is switched off" in warnings(text)[0], text
    assert "Traceback" not in text
    assert_same(whole, training.folder)
