"""A NaN stops the run with a message that says what to do, and what was saved before stays as it is."""

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from src.training.checkpoint import Checkpoints
from src.training.checkpoint_file import load_file
from src.training.loop import fit
from src.training.resume import capture
from src.training.run import Run

MakeRun = Callable[..., Any]
POISONED = """
import torch
from torch import nn

class Poisoned(nn.Module):
    def __init__(self, num_classes, at):
        super().__init__()
        self.fc, self.left = nn.Linear(3, num_classes), at

    def forward(self, images):
        self.left -= self.training
        logits = self.fc(images.mean(dim=(2, 3)))
        return logits * float("nan") if self.training and self.left < 0 else logits

def build(num_classes, at):
    return Poisoned(num_classes, at)
"""


def saving(run: Run, folder: Path) -> Checkpoints:
    """Let the run save into a folder."""
    checkpoints = Checkpoints(folder)
    checkpoints.prepare()
    writer = ThreadPoolExecutor(1)

    def write_checkpoint(run: Run) -> Callable[[], bool]:
        state = capture(run, config={}, classes=("a",))
        return writer.submit(checkpoints.save, state, [], None).result

    run.write_checkpoint = write_checkpoint
    return checkpoints


def newest_saved(run: Run, checkpoints: Checkpoints) -> dict[str, Any]:
    """Return the newest state on disk, once what is being written is written."""
    run.saving.finish()
    found = checkpoints.find_newest()
    assert found is not None
    return load_file(found)


def poison_at(run: Any, step: int) -> None:
    """Put a NaN into a weight before a step."""
    real = run.lr_at

    def lr_at(now: int) -> float:
        if now == step:
            with torch.no_grad():
                run.model.fc.weight[0, 0] = math.nan
        return float(real(now))

    run.lr_at = lr_at


def test_a_weight_that_is_nan_stops_at_the_next_log(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("save_every_steps=2", "track.log_every_steps=1")
    checkpoints = saving(run, tmp_path / "checkpoints")
    poison_at(run, 5)
    with pytest.raises(FloatingPointError) as caught:
        fit(run)
    assert str(caught.value).startswith(
        "train/loss=nan, train/grad_norm=nan in the window that ends at step 6. Nothing of it was saved."
    )
    assert "Lower optim.peak_lr" in str(caught.value)
    assert newest_saved(run, checkpoints)["step"] == 4


def test_it_is_never_saved_even_where_nothing_was_logged_yet(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("save_every_steps=2", "track.log_every_steps=1000")
    checkpoints = saving(run, tmp_path / "checkpoints")
    poison_at(run, 4)
    with pytest.raises(FloatingPointError, match="is not finite: this state is not saved"):
        fit(run)
    files = {path.name: load_file(path)["step"] for path in checkpoints.folder.glob("*.ckpt")}
    assert files == {"last.ckpt": 4, "previous.ckpt": 2}


def test_an_absurd_rate_is_found_out(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("optim.peak_lr=1e30", "track.log_every_steps=1")
    checkpoints = saving(run, tmp_path / "checkpoints")
    with pytest.raises(
        FloatingPointError, match=r"Lower optim\.peak_lr, lengthen schedule\.warmup_epochs, or set max_grad_norm=1\.0"
    ):
        fit(run)
    assert checkpoints.find_newest() is None


def test_an_infinite_gradient_norm_stops_too(make_run: MakeRun) -> None:
    run = make_run("track.log_every_steps=1")
    run.model.fc.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(FloatingPointError, match=r"train/grad_norm=(inf|nan) in the window that ends at step 1"):
        fit(run)


def test_fp16_that_overflows_at_any_scale_stops_after_so_many_steps(make_run: MakeRun) -> None:
    run = make_run("precision=fp16", "max_skipped_steps=6", "track.log_every_steps=2")
    before = run.model.fc.weight.detach().clone()
    run.model.fc.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(FloatingPointError, match=r"skipped 6 steps in a row up to step 6.*Use precision=bf16 or fp32"):
        fit(run)
    assert torch.equal(run.model.fc.weight, before), "a skipped step moves nothing"


def test_fp16_may_skip_a_step_now_and_then(make_run: MakeRun) -> None:
    run = make_run("precision=fp16", "max_skipped_steps=2", "track.log_every_steps=1", "epochs=1")
    rows: list[Any] = []
    run.trackers = [type("Rows", (), {"log": lambda _, record: rows.append(record), "advance": lambda *_: None})()]
    real, count = run.criterion, [0]

    def criterion(logits: Any, targets: Any) -> Any:
        count[0] += 1
        logits.register_hook(lambda gradient: gradient * (math.inf if count[0] in (2, 5) else 1.0))
        return real(logits, targets)

    run.criterion = criterion
    fit(run)
    counted = [record.values["train/skipped_steps"] for record in rows if record.kind == "train"]
    assert counted == [0, 1, 1, 1, 2, 2, 2, 2, 2, 2]


def test_an_evaluation_that_overflows_is_recorded_nowhere_and_is_no_best(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("epochs=2")
    checkpoints = saving(run, tmp_path / "checkpoints")
    real, count = run.measure, [0]

    def measure(run: Run) -> Any:
        count[0] += 1
        result = real(run)
        return result if count[0] == 1 else result._replace(loss=math.nan, acc1=100.0)

    run.measure = measure
    with pytest.raises(FloatingPointError, match=r"val/loss=nan at step 20, .*logits overflow in evaluation"):
        fit(run)
    assert [entry["step"] for entry in run.history.epochs] == [10]
    assert [kept.step for kept in run.history.top(5, "m")] == [10]
    state = newest_saved(run, checkpoints)
    assert (state["step"], [entry["step"] for entry in state["history"]]) == (20, [10])


def test_through_the_door(tmp_path: Path, run_door: Callable[..., Any]) -> None:
    (tmp_path / "poisoned.py").write_text(POISONED)
    model = ["model=custom", "model.factory=poisoned:build", "model.kwargs={at: 5}"]
    data = [
        "data=synthetic",
        "data.num_train=320",
        "data.num_val=20",
        "data.stored_size=16",
        "data.image_size=16",
        "data.resize_size=16",
    ]
    run = [f"runs_dir={tmp_path}", "run_name=r", "batch_size=32", "save_every_steps=2", "track.log_every_steps=1"]
    command = [*model, *data, *run, "epochs=2", "schedule.warmup_epochs=1", "data.workers=1"]
    done = run_door(*command, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1, done.stderr
    assert "ERROR   train/loss=nan, train/grad_norm=nan in the window that ends at step 6." in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    folder = tmp_path / "r" / "checkpoints"
    assert {path.name: load_file(path)["step"] for path in folder.glob("*.ckpt")} == {"last.ckpt": 4, "previous.ckpt": 2}
    status = json.loads((tmp_path / "r" / "status.json").read_text())
    assert status["status"] == "failed"
    assert status["error"].startswith("train/loss=nan")
    rows = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5], "no row of the poisoned window"
