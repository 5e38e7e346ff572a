"""Two runs in one folder, folders that cannot be written, and data that cannot be written beside."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import LAUNCHER_VARIABLES, ROOT, MakeFolder, RunDoor

TINY = (
    *("data=synthetic", "data.num_train=64", "data.num_val=20", "data.stored_size=16", "data.image_size=16", "data.resize_size=18"),
    *("model=small_resnet", "model.depth=8", "model.width=4", "batch_size=16", "schedule.warmup_epochs=0"),
)
CAN_MOUNT = (
    shutil.which("unshare") is not None
    and subprocess.run(["unshare", "-m", "mount", "--bind", "/tmp", "/tmp"], capture_output=True, check=False).returncode == 0
)


def test_a_second_run_in_one_folder_is_refused_and_the_first_goes_on_unharmed(run_door: RunDoor, tmp_path: Path) -> None:
    command = (*TINY, "epochs=100000", "eval_every_epochs=100000", f"runs_dir={tmp_path}", "run_name=r")
    env = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES} | {"OMP_NUM_THREADS": "1"}
    first = subprocess.Popen([sys.executable, "-m", "src.train", *command], cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
    try:
        metrics, deadline = tmp_path / "r" / "metrics.jsonl", time.monotonic() + 120
        while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.05)
        for ranks in (None, 2):
            second = run_door(*command, ranks=ranks)
            assert second.returncode == (2 if ranks is None else 1), second.stderr
            told = second.stderr.count(f"run_name = 'r': is in use by process {first.pid} on")
            assert told == 1 if ranks is None else told >= 1  # torchrun repeats it in its report
            assert "Traceback" not in second.stderr.partition("torch/distributed/elastic")[0]
        assert first.poll() is None
        steps = len(metrics.read_bytes().splitlines())
        while len(metrics.read_bytes().splitlines()) <= steps and time.monotonic() < deadline + 120:
            time.sleep(0.05)
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=120) == 75
    finally:
        first.kill()
        first.wait()
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert len(rows) > steps, "the first run did not go on"
    assert [row["step"] for row in rows if row["kind"] == "train"] == sorted(
        {row["step"] for row in rows if row["kind"] == "train"}
    )
    assert json.loads((tmp_path / "r" / "status.json").read_text())["status"] == "preempted"


@pytest.mark.skipif(not CAN_MOUNT, reason="read-only mounts need root and mount namespaces")
def test_on_a_read_only_disk_data_are_read_and_runs_are_refused(tmp_path: Path, make_folder: MakeFolder) -> None:
    disk = tmp_path / "disk"
    for split in ("train", "val"):
        make_folder(disk / split)
    common = (
        "data=imagefolder",
        f"data.path={disk}",
        f"data.cache_dir={tmp_path}/cache",
        "data.image_size=32",
        "data.resize_size=32",
    )
    net = ("model=small_resnet", "model.depth=8", "model.width=4", "batch_size=4", "epochs=1", "schedule.warmup_epochs=0")
    before = sorted(path.name for path in disk.iterdir())
    done = on_read_only(disk, *common, *net, f"runs_dir={tmp_path}/runs")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in disk.iterdir()) == before
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 2
    refused = on_read_only(disk, *common, *net, f"runs_dir={disk}/runs")
    assert refused.returncode == 2, refused.stderr
    assert f"runs_dir = '{disk}/runs': {disk} cannot be written. Set runs_dir to a folder that can." in refused.stderr
    assert "Traceback" not in refused.stderr


def on_read_only(disk: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Train with this folder mounted read-only, which stops even root."""
    env = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    env |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    script = f"mount --bind '{disk}' '{disk}' && mount -o remount,ro,bind '{disk}' && exec \"$@\""
    command = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-m", "src.train", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=250, check=False)
