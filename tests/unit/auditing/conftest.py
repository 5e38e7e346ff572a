"""A record of a run that never was, put together from its own arithmetic, to be altered."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from src.auditing.record import RunRecord, State
from src.config import Config, load
from src.tracking.ledger_file import ROW
from src.training.arithmetic import Arithmetic, plan_arithmetic
from src.training.schedule import build_lr_at

NUM_TRAIN, NUM_VAL, A_EPOCH, EPOCHS, BATCH, EVERY = 330, 50, 10, 3, 32, 4
MakeRecord = Callable[..., RunRecord]


@pytest.fixture
def make_record(tmp_path: Path) -> MakeRecord:
    """Return a record that agrees with itself; whoever asks for it may alter rows, ledger and states in place."""

    def make() -> RunRecord:
        config = _config()
        ledger = np.zeros(A_EPOCH * EPOCHS, ROW)
        ledger["step"] = np.arange(1, len(ledger) + 1)
        ledger["loss"] = 2 + np.sin(ledger["step"])
        ledger["local_batch_size"], ledger["world_size"], ledger["threads"] = BATCH, 1, 1
        rows = _rows(config, ledger)
        states = [_state(rows, ledger, step, names) for step, names in ((20, ("a-val_acc1-2.ckpt",)), (30, ("last.ckpt",)))]
        status = {"status": "finished", "step": len(ledger)}
        return RunRecord(tmp_path, config, rows, ledger, states, status, {})

    return make


@pytest.fixture
def arithmetic(make_record: MakeRecord) -> Arithmetic:
    return plan_arithmetic(make_record().config, num_train=NUM_TRAIN, world_size=1)


@cache
def _config() -> Config:
    return load(
        [
            "data=synthetic",
            f"batch_size={BATCH}",
            f"epochs={EPOCHS}",
            "keep_top_k=2",
            "schedule.warmup_epochs=1",
            f"track.log_every_steps={EVERY}",
        ]
    )


def _rows(config: Any, ledger: Any) -> list[dict[str, Any]]:
    lr_at = build_lr_at(config, steps_per_epoch=A_EPOCH, total_steps=A_EPOCH * EPOCHS)
    rows: list[dict[str, Any]] = []
    before, hits, elapsed = 0, 0, 0.0
    for step in range(1, len(ledger) + 1):
        if step % EVERY == 0 or step % A_EPOCH == 0:
            images = (step - before) * BATCH
            elapsed += 0.25 * (step - before)
            row = _row("train", step, ledger["loss"][before:step], images, images // 3)
            rate = {"time/elapsed_seconds": elapsed, "time/images_per_second": BATCH / 0.25, "time/data_wait_fraction": 0.1}
            rows.append(row | {"train/lr": lr_at(step - 1), "data/image_size": config.data.image_size} | rate)
            hits, before = hits + images // 3, step
        if step % A_EPOCH == 0:
            row = _row("epoch", step, ledger["loss"][step - A_EPOCH : step], A_EPOCH * BATCH, hits)
            val = {"val/loss": 1.5, "val/acc1": 100 * (20 + step // A_EPOCH) / NUM_VAL, "val/acc5": 100 * 45 / NUM_VAL}
            rows.append(row | {"data/image_size": config.data.image_size} | val)
            hits = 0
    return rows


def _row(kind: str, step: int, losses: Any, images: int, hits: int) -> dict[str, Any]:
    acc = {"train/acc1": 100 * hits / images, "train/acc5": 100.0 * min(images, 2 * hits) / images, "data/bad_images": 0}
    return {"kind": kind, "step": step, "epoch": (step - 1) // A_EPOCH, "train/loss": float(losses.mean()), **acc}


def _state(rows: list[dict[str, Any]], ledger: Any, step: int, names: tuple[str, ...]) -> State:
    history = [
        {"step": row["step"], "epoch": row["epoch"], **{key: row[key] for key in row if key.startswith("val/")}}
        for row in rows
        if row["kind"] == "epoch" and row["step"] <= step
    ]
    meters = [torch.zeros(2, 5, dtype=torch.float64)]
    return State(
        names, {"step": step, "history": history, "meters": meters, "classes": ["a"], "config": {}, "world_size": 1, "threads": 1}
    )
