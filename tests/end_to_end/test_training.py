"""The door as a user has it: train, stop, resume, evaluate, on small data."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, MakeFolder, RunDoor

TINY = (
    *(
        "data=synthetic",
        "data.num_train=640",
        "data.num_val=100",
        "data.stored_size=16",
        "data.image_size=16",
        "data.resize_size=18",
    ),
    *("model=small_resnet", "model.width=4", "model.stem_stride=2", "batch_size=32", "schedule.warmup_epochs=1", "epochs=2"),
)
REAL_IMAGES = ROOT.parent / "shared" / "data" / "imagenet-sample"


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def status_of(folder: Path) -> str:
    return str(json.loads((folder / "status.json").read_text())["status"])


def test_a_run_leaves_everything_and_its_second_start_trains_nothing(run_door: RunDoor, tmp_path: Path) -> None:
    command = (*TINY, f"runs_dir={tmp_path}", "run_name=r", "keep_top_k=1")
    first = run_door(*command)
    result = result_of(first)
    folder = tmp_path / "r"
    assert result | {"images_per_second": 0} == {
        "status": "finished",
        "run_dir": str(folder),
        "val_acc1": result["val_acc1"],
        "val_acc5": result["val_acc5"],
        "val_loss": result["val_loss"],
        "epoch": 1,
        "images_per_second": 0,
    }
    assert result["images_per_second"] > 0
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    epochs = [row for row in rows if row["kind"] == "epoch"]
    assert [row["epoch"] for row in epochs] == [0, 1]
    assert epochs[-1]["val/acc1"] == result["val_acc1"]
    assert {"train/loss", "train/acc1", "train/acc5", "train/lr", "train/grad_norm", "time/images_per_second"} <= rows[0].keys()
    assert {"time/data_wait_fraction"} <= rows[0].keys()
    best = max(row["val/acc1"] for row in epochs)
    kept = {path.name for path in (folder / "checkpoints").glob("*.ckpt")}
    named = next(name for name in kept if name.startswith("small_resnet-epoch-"))
    assert named.endswith(f"val_acc1-{best:.3f}.ckpt")
    assert kept == {"last.ckpt", "previous.ckpt", "best.ckpt", named}
    assert status_of(folder) == "finished"
    assert json.loads((folder / "meta.json").read_text())["packages"]["torch"]
    assert "src.train" in (folder / "command.txt").read_text()
    assert "train loss" in first.stderr and "warning" not in first.stderr.lower()

    before = (folder / "metrics.jsonl").read_bytes(), (folder / "checkpoints" / "last.ckpt").read_bytes()
    again = result_of(run_door(*command))
    assert again["val_acc1"] == result["val_acc1"] and again["status"] == "finished"
    assert ((folder / "metrics.jsonl").read_bytes(), (folder / "checkpoints" / "last.ckpt").read_bytes()) == before


@pytest.mark.parametrize(
    ("ranks", "how", "code"),
    [
        (1, signal.SIGTERM, 75),
        pytest.param(1, signal.SIGUSR1, 75, marks=pytest.mark.long),
        (1, signal.SIGINT, 130),
        pytest.param(1, "STOP", 75, marks=pytest.mark.long),
        pytest.param(2, signal.SIGTERM, 1, marks=pytest.mark.long),
        (2, "STOP", 0),
    ],
)
def test_asked_to_stop_it_saves_and_goes_on(tmp_path: Path, run_door: RunDoor, ranks: int, how: Any, code: int) -> None:
    folder = tmp_path / "r"
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *launcher, "-m", "src.train", *TINY, "epochs=2000", f"runs_dir={tmp_path}", "run_name=r"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not ((folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    if how == "STOP":
        (folder / "STOP").touch()
    else:
        os.kill(process.pid, how)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err[-3000:]  # torchrun itself ends with 1 after a signal: status.json tells
    assert json.loads(out.splitlines()[-1])["status"] == "preempted"
    assert status_of(folder) == "preempted"
    assert "asked to stop: saved at step" in err
    if ranks == 1 and how is signal.SIGTERM:
        step = json.loads((folder / "status.json").read_text())["step"]
        resumed = run_door(*TINY, "epochs=2000", "run_name=r", f"runs_dir={tmp_path}", "batch_size=64")
        assert resumed.returncode == 2 and "batch_size = 64" in resumed.stderr  # the folder is free again, and still guarded
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert max(row["step"] for row in rows) <= step


@pytest.mark.parametrize(
    "more", [("precision=fp16",), ("precision=bf16", "compile=true"), ("deterministic=true", "channels_last=false")]
)
def test_other_arithmetic_learns_too(run_door: RunDoor, tmp_path: Path, more: tuple[str, ...]) -> None:
    result = result_of(run_door(*TINY, "epochs=4", *more, f"runs_dir={tmp_path}"))
    assert result["val_acc1"] > 40  # ten classes; fp32 reaches 60 to 100


@pytest.mark.skipif(not REAL_IMAGES.is_dir(), reason=f"no real images at {REAL_IMAGES}")
def test_real_images_as_train_and_val_without_a_warning(run_door: RunDoor, tmp_path: Path) -> None:
    paths = (f"data.train_path={REAL_IMAGES}", f"data.val_path={REAL_IMAGES}", f"data.cache_dir={tmp_path}/cache")
    small = (
        "data.image_size=32",
        "data.resize_size=36",
        "model=small_resnet",
        "batch_size=50",
        "epochs=1",
        "schedule.warmup_epochs=0",
    )
    done = run_door("data=imagefolder", *paths, *small, f"runs_dir={tmp_path}/runs")
    result_of(done)
    assert "200 train, 200 val, 200 classes" in done.stderr
    assert "warn" not in done.stderr.lower()
    assert not list(REAL_IMAGES.parent.glob(".*.npz"))


def test_another_runs_checkpoint_begins_a_new_run(run_door: RunDoor, tmp_path: Path, make_folder: MakeFolder) -> None:
    result_of(run_door(*TINY, "epochs=1", f"runs_dir={tmp_path}", "run_name=old"))
    more = run_door(*TINY, "epochs=2", f"runs_dir={tmp_path}", "run_name=new", f"resume={tmp_path}/old/checkpoints/last.ckpt")
    assert result_of(more)["epoch"] == 1
    assert "resuming from" in more.stderr and "step 20 of 40" in more.stderr
    refused = run_door(*TINY, "model.width=8", f"runs_dir={tmp_path}", "run_name=x", f"resume={tmp_path}/old/checkpoints/last.ckpt")
    assert refused.returncode == 2 and "model.width = 8: was 4" in refused.stderr
    averaged = ("average=ema", f"runs_dir={tmp_path}", "run_name=y", f"resume={tmp_path}/old/checkpoints/last.ckpt")
    refused = run_door(*TINY, *averaged)  # the state holds no average to go on from
    assert refused.returncode == 2 and "average.name = 'ema': was none" in refused.stderr
    begun = run_door(*TINY, "epochs=1", f"runs_dir={tmp_path}", "run_name=z", f"model.weights={tmp_path}/old/checkpoints/last.ckpt")
    assert result_of(begun)["status"] == "finished" and "weights from" in begun.stderr


@pytest.mark.skipif(not (ROOT / "data" / "fashion_mnist" / "val").is_dir(), reason="no demo data: make data")
def test_the_demo_learns_real_images(run_door: RunDoor, tmp_path: Path) -> None:
    done = run_door("experiment=demo", "data.subset=small", "data.val_subset=tiny", "epochs=2", f"runs_dir={tmp_path}")
    assert result_of(done)["val_acc1"] > 70
    assert "10,000 train, 1,000 val" in done.stderr


def test_one_batch_is_learned_by_heart(run_door: RunDoor, tmp_path: Path) -> None:
    done = run_door("debug=overfit", *TINY[:6], "model=small_resnet", f"runs_dir={tmp_path}", "run_name=r")
    assert "steps     60 = 60 epochs x 1" in done.stderr
    result_of(done)
    losses = [json.loads(line).get("train/loss") for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.1 < losses[0]
