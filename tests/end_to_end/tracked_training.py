"""A small run that is told to others, as a user starts it; and what must be the same whoever is told."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from src.tracking.jsonl import read_rows
from src.training.checkpoint_file import load_file
from tests.conftest import LAUNCHER_VARIABLES, ROOT
from tests.end_to_end.kill_harness import SYNTHETIC, without_times
from tests.processes import children
from tests.training.conftest import differing

SETTINGS = (
    *SYNTHETIC,
    *("model=small_resnet", "model.width=4", "model.stem_stride=2", "batch_size=32", "epochs=8", "schedule.warmup_epochs=1"),
    *("track.log_every_steps=4", "keep_top_k=1", "eval_batch_size=100", "save_every_steps=50"),
)


class Training:
    """One run and its trackers' processes."""

    def __init__(self, folder: Path, name: str, *more: str) -> None:
        self.folder, self._log = folder / name, folder / f"{name}.log"
        self._command = [sys.executable, "-m", "src.train", *SETTINGS, *more, f"runs_dir={folder}", f"run_name={name}"]

    def start(self) -> "Training":
        kept = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
        settings = kept | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(self._command, cwd=ROOT, env=settings, stdout=subprocess.PIPE, stderr=log, text=True)
        return self

    def stand_still_until(self, told: Callable[[], bool], *, rows: int = 3) -> None:
        """Once there are so many rows, stop the training until its trackers have told what is asked for: it is not over by then."""
        self.wait_for(lambda: len(read_rows(self.folder / "metrics.jsonl")) >= rows)
        self.signal(signal.SIGSTOP)
        self.wait_for(told)

    def wait_for(self, happens: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not happens():
            assert self._process.poll() is None and time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.01)

    def sent(self) -> dict[str, Any]:
        """Return what wandb's process has noted as sent."""
        with contextlib.suppress(OSError):
            return dict(json.loads((self.folder / "wandb" / "sent.json").read_text()))
        return {}

    def trackers(self, module: str) -> list[int]:
        """Return the processes of a tracker, by its module's name."""
        found = []
        for child in children(self._process.pid):
            with contextlib.suppress(OSError):
                if module in Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0"):
                    found.append(child)
        return found

    def services(self) -> list[int]:
        """Return the processes that trackers have started, such as wandb's service."""
        return [service for child in children(self._process.pid) for service in children(child)]

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self, *others: int) -> None:
        """SIGKILL the training and others of its processes in one moment."""
        for pid in (*others, self._process.pid):
            os.kill(pid, signal.SIGKILL)
        self._process.communicate(timeout=60)

    def finish(self) -> tuple[int, dict[str, Any], str]:
        """Return the exit code, stdout's last line, and stderr."""
        out, _ = self._process.communicate(timeout=240)
        assert out.count("\n") == 1, (out, self._log.read_text())
        return self._process.returncode, json.loads(out), self._log.read_text()

    def rows(self) -> list[dict[str, Any]]:
        return read_rows(self.folder / "metrics.jsonl")


def warnings(text: str) -> list[str]:
    return re.findall(r"^\S+ WARNING .*$", text, re.MULTILINE)


def assert_same(whole: Path, other: Path) -> None:
    states = [load_file(run / "checkpoints" / "last.ckpt") for run in (whole, other)]
    for state in states:  # who is told of a run is no part of it
        state["config"]["run_name"] = state["config"]["runs_dir"] = state["config"]["track"] = None
    assert not differing(*states)
    rows = [[without_times(row) for row in read_rows(run / "metrics.jsonl")] for run in (whole, other)]
    assert rows[0] == rows[1]


def told_once(rows: list[dict[str, Any]]) -> dict[int, dict[str, float]]:
    """Return what a tracker must have of these rows: by step, every key once; an epoch's means beside its last window's."""
    steps: dict[int, dict[str, float]] = {}
    for row in rows:
        values = steps.setdefault(row["step"], {})
        for key, value in row.items():
            name = re.sub(r"^(train|data|augment)/", r"\1_epoch/", key) if row["kind"] == "epoch" else key
            if key not in ("kind", "step"):
                assert values.get(name, value) == value, f"{name} twice at step {row['step']}"
                values[name] = value
    return steps
