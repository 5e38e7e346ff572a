"""Runs' folders as a training leaves them, written by the same writers, with figures of our choice."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from src.batch import Record
from src.config import Config, load
from src.reporting.records import Run, read_run
from src.tracking.config_file import write_config
from src.tracking.jsonl import JsonlTracker

STEPS = 10  # an epoch
HEADER = """2026-11-22 00:14:34 INFO    run       runs/x
2026-11-22 00:14:34 INFO    data      {data}: 60,000 train, {images:,} val, {classes:,} classes, {engine}
2026-11-22 00:14:34 INFO    model     small_resnet, 78,042 parameters, fp32
"""
PROTOCOL = {
    "split": "val",
    "subset": "full",
    "images": 10_000,
    "resize_size": 28,
    "image_size": 28,
    "crop": "centre",
    "interpolation": "bilinear",
    "engine": "torchvision",
    "precision": "fp32",
    "weights": "trained",
    "test_time_augmentation": "none",
}


def make_run(
    folder: Path,
    accuracies: Sequence[float | None],
    *,
    overrides: Sequence[str] = (),
    seed: int = 0,
    epochs: int | None = None,
    status: str = "finished",
    log: bool = True,
    speed: float = 1.0,
    **protocol: Any,
) -> Path:
    """Write a run with one evaluation an epoch; None is an epoch without one.

    Args:
        folder: where; its name is the run's.
        accuracies: in percent.
        overrides: of the configuration, beside the demo's.
        seed: of the run.
        epochs: that were asked for; as many as there are accuracies.
        status: in status.json; finished ones tell the protocol.
        log: whether there is a train.log.
        speed: divides all times.
        protocol: entries that are told otherwise than PROTOCOL has them.
    """
    folder.mkdir(parents=True)
    config = _configuration(epochs or len(accuracies), tuple(overrides)).model_copy(update={"seed": seed, "run_name": folder.name})
    write_config(folder / "config.yaml", config)
    told = PROTOCOL | {"resize_size": config.data.resize_size, "image_size": config.data.eval_image_size} | protocol
    state = {"status": status, "step": STEPS * len(accuracies)} | ({"protocol": told} if status == "finished" else {})
    (folder / "status.json").write_text(json.dumps(state))
    (folder / "meta.json").write_text(json.dumps({"device": "cpu", "world_size": 1, "command": ["python", "-m", "src.train"]}))
    if log:
        (folder / "train.log").write_text(
            HEADER.format(data=config.data.name, images=told["images"], engine=told["engine"], classes=10)
        )
    tracker = JsonlTracker(folder / "metrics.jsonl")
    for epoch, accuracy in enumerate(accuracies):
        _write_epoch(tracker, epoch, accuracy, seconds=6 / speed)
    tracker.sync()
    tracker.close()
    return folder


@cache
def _configuration(epochs: int, overrides: tuple[str, ...]) -> Config:
    return load(["experiment=demo", f"epochs={epochs}", "schedule.warmup_epochs=0", *overrides])


def run_of(folder: Path, accuracies: Sequence[float | None], **settings: Any) -> Run:
    """Write a run and read it."""
    return read_run(make_run(folder, accuracies, **settings))


def _write_epoch(tracker: JsonlTracker, epoch: int, accuracy: float | None, *, seconds: float) -> None:
    for half in (1, 2):
        step = STEPS * epoch + STEPS * half // 2
        window = {
            "train/loss": 1 / (epoch + half),
            "train/lr": 0.1 / (step + 1),
            "time/images_per_second": 64 * STEPS / seconds,
            "time/data_wait_fraction": 0.05 * half,
            "time/elapsed_seconds": seconds * (epoch + half / 2),
        }
        tracker.log(Record("train", step, epoch, window))
    values = {"train/loss": 1 / (epoch + 1), "train/acc1": 50.0 + epoch, "train/acc5": 90.0, "time/epoch_seconds": seconds}
    if accuracy is not None:
        values |= {
            "val/loss": 1 - accuracy / 200,
            "val/acc1": accuracy,
            "val/acc5": 99.0 + accuracy / 200,
            "time/eval_seconds": 1.0,
        }
    tracker.log(Record("epoch", STEPS * (epoch + 1), epoch, values))
