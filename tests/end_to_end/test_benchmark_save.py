"""python -m src.benchmark save: it tells what it measured, and leaves nothing behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.kill_harness import ROOT


@pytest.mark.long
def test_it_measures_a_save_and_cleans_up(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "src.benchmark", "save", "saves=2", "batch=2", "size=32"]
    settings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout)
    assert figures["benchmark"] == "save" and figures["saves"] == 2
    assert 280 < figures["checkpoint_mib"] < 320  # weights, momentum and average of 25.6 million numbers
    still = figures["stand_still_seconds"]
    assert 0 < still["low"] <= still["median"] <= still["high"]
    assert figures["write_seconds"]["median"] > 0
    assert 0 < figures["share_of_an_epoch"] < 1 and figures["write_mib_a_second"] > 0
    assert [path.name for path in tmp_path.rglob("*.ckpt")] == []
