"""A sweep is one run after another, each with a folder of its own; the first that fails ends it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import yaml

RunDoor = Callable[..., subprocess.CompletedProcess[str]]
SMALL = "data=synthetic data.num_train=20 data.num_val=10 data.num_classes=2 model=small_resnet batch_size=10 data.workers=1"


def test_a_grid_trains_a_run_for_each_point_in_order(tmp_path: Path, run_door: RunDoor) -> None:
    command = f"{SMALL} --multirun seed=1,0 epochs=1 schedule.warmup_epochs=0 runs_dir={tmp_path / 'runs'}"
    done = run_door(*command.split())
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("run ")]
    assert [(line[:10], "seed=1" in line) for line in said] == [("run 1 of 2", True), ("run 2 of 2", False)]
    seeds = {yaml.safe_load(file.read_text())["seed"] for file in tmp_path.glob("runs/*/config.yaml")}
    assert seeds == {0, 1}
    assert done.stdout.count('"status": "finished"') == 2


def test_a_point_that_fails_ends_the_sweep_with_its_code(tmp_path: Path, run_door: RunDoor) -> None:
    command = f"--multirun seed=0,1 data.path={tmp_path / 'none'} data.cache_dir={tmp_path / 'cache'} runs_dir={tmp_path / 'runs'}"
    done = run_door(*command.split())
    assert done.returncode == 2
    assert "run 1 of 2" in done.stderr
    assert "run 2 of 2" not in done.stderr
    assert "data.train_path" in done.stderr
