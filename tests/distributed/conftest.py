"""Several processes on one machine."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    *(
        "data=synthetic",
        "data.num_train=100",
        "data.num_val=53",
        "data.stored_size=16",
        "data.image_size=16",
        "data.resize_size=18",
    ),
    *("model=small_resnet", "model.width=4", "model.stem_stride=2", "batch_size=32", "epochs=2", "schedule.warmup_epochs=1"),
)

Torchrun = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def torchrun() -> Torchrun:
    """Run a script or a module (`-m x`) on so many ranks; fail loudly if it does."""

    def run(ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}", *arguments]
        settings = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=250, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    return run
