"""python -m src.export as the user runs it: with the network cut, killed, and typed wrongly."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import LAUNCHER_VARIABLES, RunDoor
from tests.end_to_end.test_help import ROOT, WATCHED
from tests.network import cut_off, reached_for, traced
from tests.unit.exporting.small_runs import SMALL, write_run

DOOR = (sys.executable, "-m", "src.export")
PLAIN = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES} | {
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "small", *SMALL)


def last_line(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_without_a_network_all_is_made_and_evaluates_as_the_checkpoint(run: Path, tmp_path: Path, run_door: RunDoor) -> None:
    words = (*DOOR, f"checkpoint={run}", f"target={tmp_path / 'out'}", "check_images=all")
    command = cut_off(*traced(tmp_path / "trace", *words))
    done = subprocess.run(command, cwd=ROOT, env=PLAIN, capture_output=True, text=True, timeout=280, check=False)
    result = last_line(done)
    assert reached_for(tmp_path / "trace") == []
    assert len(done.stdout.splitlines()) == 1
    assert set(result["latency"]["batch_1"]) == {"pytorch", "torch_export", "onnx"}
    evaluated = last_line(run_door(f"checkpoint={tmp_path / 'out'}", module="src.evaluate"))
    assert evaluated["val_acc1"] == pytest.approx(result["check"]["model"]["acc1"])
    assert evaluated["images"] == 130


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--help"], 0, ["max_difference", "calibration_images"]),
        (
            ["formats=onnx,tensorrt", "check_images=some", "prune=1.5"],
            2,
            ["checkpoint: must be given once", "'tensorrt': must be one of", "check_images = 'some'", "prune = 1.5"],
        ),
    ],
)
def test_help_and_mistakes_import_no_torch_and_tell_everything_at_once(arguments: list[str], code: int, words: list[str]) -> None:
    command = [sys.executable, "-c", WATCHED.replace("src.train", "src.export"), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1] == "imported:"
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stdout + done.stderr


def test_what_is_no_model_is_refused_by_name_before_anything_is_made(tmp_path: Path, run_door: RunDoor) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text('{"format": "imagenet-trainer", "format_version": 1, "config": []}')
    done = run_door(f"checkpoint={tmp_path / 'bad'}", f"target={tmp_path / 'out'}", module="src.export")
    assert done.returncode == 2
    assert "lacks, or has damaged: config, classes, weights, history" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad"]


@pytest.mark.parametrize(
    "moments", [pytest.param([0.5], id="half-way"), pytest.param([number / 12 for number in range(1, 12)], marks=pytest.mark.long)]
)
def test_a_killed_export_leaves_no_folder_and_the_next_one_none_of_its_rests(
    run: Path, tmp_path: Path, moments: list[float]
) -> None:
    target = tmp_path / "out"
    words = [*DOOR, f"checkpoint={run}", f"target={target}", "latency=false", "check_images=0", "formats=safetensors,torch_export"]
    files = 2  # that stand in the temporary folder when it is half done
    for moment in moments:
        process = subprocess.Popen(words, cwd=ROOT, env=PLAIN, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 200
        while process.poll() is None and len(list(tmp_path.glob(".writing-*/*"))) < max(1, round(files * moment)):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(0.05 * moment)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was done before it was killed"
        assert not target.exists()
        assert any(tmp_path.iterdir())
    done = subprocess.run(words, cwd=ROOT, env=PLAIN, capture_output=True, text=True, timeout=200, check=False)
    assert last_line(done)["status"] == "finished"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.long
def test_on_all_of_fashion_mnist_onnx_predicts_what_the_model_predicts(tmp_path: Path, run_door: RunDoor) -> None:
    if not (ROOT / "data" / "fashion_mnist" / "val").is_dir():
        pytest.skip("data/fashion_mnist is not there: make data")
    sizes = ("epochs=1", "schedule.warmup_epochs=0", f"runs_dir={tmp_path}", "run_name=short")
    trained = last_line(run_door("experiment=demo", "data=fashion_mnist", *sizes))
    exported = (f"checkpoint={tmp_path / 'short'}", f"target={tmp_path / 'out'}", "check_images=all")
    result = last_line(run_door(*exported, "latency=false", module="src.export"))
    assert result["check"]["images"] == 10_000
    assert result["check"]["model"]["acc1"] == trained["val_acc1"]
    onnx = result["formats"]["onnx"]
    assert (onnx["different_predictions"], onnx["acc1"]) == (0, trained["val_acc1"])
    assert onnx["max_difference"] < 1e-4
