"""Two ranks, then one, then two: each step is given the same images, boxes and flips as if nothing had changed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.conftest import ROOT, TINY

pytestmark = pytest.mark.slow
MORE = ("data.num_train=330", "max_local_batch_size=8", "save_every_steps=100")  # 2 epochs of 10 steps of 4 slots


def train(folder: Path, name: str, ranks: int, *faults: str) -> "subprocess.CompletedProcess[str]":
    (folder / name).mkdir(exist_ok=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    module = ["-m", "tests.distributed.record_training", str(folder / name), *faults, "--"]
    command = [sys.executable, *launcher, *module, *TINY, *MORE, f"runs_dir={folder}/runs", f"run_name={name}"]
    settings = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=250, check=False)


def seen(folder: Path) -> dict[str, list[list[object]]]:
    """Return all that each slot of each step was given, by all processes."""
    given: dict[str, list[list[object]]] = {}
    for file in folder.glob("*.jsonl"):
        for line in file.read_text().splitlines():
            place, *what = json.loads(line)
            given.setdefault(place, []).append(what)
    return given


def test_stopped_on_two_ranks_continued_on_one_and_ended_on_two(tmp_path: Path) -> None:
    whole = train(tmp_path, "whole", 1)
    assert whole.returncode == 0, whole.stderr[-3000:]
    for ranks, step, codes in ((2, 4, {0}), (1, 13, {75})):
        done = train(tmp_path, "changed", ranks, f"signal:USR1:step={step},marker={tmp_path}/at-{step}")
        assert done.returncode in codes, done.stderr[-3000:]
        assert json.loads((tmp_path / "runs" / "changed" / "status.json").read_text())["status"] == "preempted"
    done = train(tmp_path, "changed", 2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "finished"
    assert {file.name.split("-")[0] for file in (tmp_path / "changed").glob("*.jsonl")} == {"1", "2"}
    expected, given = seen(tmp_path / "whole"), seen(tmp_path / "changed")
    assert len(expected) == 2 * 10 * 4  # epochs x steps x slots
    assert given == expected, "an image twice, left out, or in another step"
    rows = [
        [json.loads(line) for line in (tmp_path / "runs" / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "changed")
    ]
    assert [(row["kind"], row["step"]) for row in rows[0]] == [(row["kind"], row["step"]) for row in rows[1]]
