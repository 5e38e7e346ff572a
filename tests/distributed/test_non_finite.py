"""A number that is not finite on one rank is every rank's affair: they stop together, or skip the same step."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.training.checkpoint_file import load_file
from tests.distributed.conftest import ROOT, TINY

OVERFLOWING = """
import os

import torch
from torch import nn


class Overflowing(nn.Module):
    '''Its gradient overflows on rank 1 at the second step, and from the fifth on.'''

    def __init__(self, num_classes):
        super().__init__()
        self.fc, self.steps = nn.Linear(3, num_classes), 0

    def forward(self, images):
        logits = self.fc(images.mean(dim=(2, 3)))
        self.steps += self.training
        if self.training and os.environ["RANK"] == "1" and (self.steps == 2 or self.steps >= 5):
            logits.register_hook(lambda gradient: gradient * float("inf"))
        return logits


def build(num_classes):
    return Overflowing(num_classes)
"""


def train_on_two_ranks(folder: Path, *settings: str, faults: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    of_small_resnet = ("model.width=4", "model.stem_stride=2")
    base = [word for word in TINY if "model=custom" not in settings or word not in of_small_resnet]
    run = (*base, "data.num_train=320", f"runs_dir={folder}", "run_name=r", *settings)
    what = ("-m", "tests.faults", *faults, "--", *run) if faults else ("-m", "src.train", *run)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *what]
    around = os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
    }
    return subprocess.run(command, cwd=ROOT, env=around, capture_output=True, text=True, timeout=250, check=False)


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "r" / "metrics.jsonl").read_text().splitlines()]


def steps_saved_in(folder: Path) -> dict[str, int]:
    return {path.name: load_file(path)["step"] for path in (folder / "r" / "checkpoints").glob("*.ckpt")}


def test_a_poisoned_batch_of_rank_1_stops_both_at_the_next_log(tmp_path: Path) -> None:
    faults = [f"nan:rank=1,step=5,marker={tmp_path / 'fired'}"]
    done = train_on_two_ranks(tmp_path, "track.log_every_steps=1", "save_every_steps=2", faults=faults)
    assert done.returncode != 0
    assert "ERROR   train/loss=nan, train/grad_norm=nan in the window that ends at step 6. Nothing of it was saved." in done.stderr
    assert [row["step"] for row in rows_in(tmp_path)] == [1, 2, 3, 4, 5]
    assert steps_saved_in(tmp_path) == {"last.ckpt": 4, "previous.ckpt": 2}
    assert json.loads((tmp_path / "r" / "status.json").read_text())["status"] == "failed"


def test_it_is_not_saved_where_nothing_was_logged_yet(tmp_path: Path) -> None:
    faults = [f"nan:rank=1,step=5,marker={tmp_path / 'fired'}"]
    done = train_on_two_ranks(tmp_path, "track.log_every_steps=1000", "save_every_steps=2", faults=faults)
    assert done.returncode != 0
    assert "is not finite: this state is not saved" in done.stderr
    assert steps_saved_in(tmp_path) == {"last.ckpt": 4, "previous.ckpt": 2}
    assert json.loads((tmp_path / "r" / "status.json").read_text())["status"] == "failed"


def test_an_overflow_on_rank_1_is_skipped_by_both_and_counted_and_may_not_go_on(tmp_path: Path) -> None:
    (tmp_path / "overflowing.py").write_text(OVERFLOWING)
    model = ("model=custom", "model.factory=overflowing:build", "precision=fp16", "max_skipped_steps=3", "average=ema")
    done = train_on_two_ranks(tmp_path, *model, "track.log_every_steps=1", "save_every_steps=1")
    assert done.returncode != 0
    assert "the fp16 scaler skipped 3 steps in a row up to step 7: gradients overflow at any scale." in done.stderr
    assert [row["train/skipped_steps"] for row in rows_in(tmp_path)] == [0, 1, 1, 1, 2, 3]
    last, previous = (load_file(tmp_path / "r" / "checkpoints" / name) for name in ("last.ckpt", "previous.ckpt"))
    assert (last["step"], previous["step"]) == (6, 5)
    assert all((last["model"][name] == previous["model"][name]).all() for name in last["model"]), "a skipped step moves nothing"
