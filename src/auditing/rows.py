"""Whether metrics.jsonl follows from the ledger, from itself and from the pure functions of the step. Nothing is trained."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from src.auditing.record import RunRecord
from src.auditing.verdict import Check, check
from src.config import Config
from src.training.arithmetic import Arithmetic
from src.training.schedule import image_size_at

Row = dict[str, Any]
_EPS = float(np.finfo(np.float64).eps)
_WHOLE = 1e-6  # a count of hits that was divided by its images and multiplied again is off by less
_CLOCK = 1e-6  # relative: a short window of a long run is a small difference of large numbers
_PURE = 1e-12  # relative: another machine's cosine may differ in its last bits


def steps_check(record: RunRecord, arithmetic: Arithmetic) -> Check:
    """Look whether the ledger has every step once, from the first on, as far as the metrics go."""
    steps = record.ledger["step"].astype(np.int64)
    wrong = [f"step {now} follows {before} in the ledger" for before, now in pairwise(steps.tolist()) if now != before + 1]
    if steps[0] != 1:
        wrong.append(f"the ledger begins at step {steps[0]:,}: the steps before it are not in it")
    last = max((row["step"] for row in record.metrics), default=0)
    if last > steps[-1] and record.status.get("status") == "finished":
        wrong.append(f"metrics.jsonl goes to step {last:,}, the ledger to {steps[-1]:,}")
    if steps[-1] > arithmetic.total_steps:
        wrong.append(f"the ledger goes to step {steps[-1]:,}, and the run has {arithmetic.total_steps:,}")
    if not np.isfinite(record.ledger["loss"]).all():
        wrong.append(f"the loss of step {steps[~np.isfinite(record.ledger['loss'])][0]:,} is not finite")
    return check("steps", wrong, f"{len(steps):,} without a gap")


def schedule_check(record: RunRecord, arithmetic: Arithmetic, lr_at: Callable[[int], float]) -> Check:
    """Look whether every row's epoch, rate and image size are the configuration's functions of its step."""
    wrong = []
    for row in record.metrics:
        step, epoch = row["step"], (row["step"] - 1) // arithmetic.steps_per_epoch
        if row["epoch"] != epoch:
            wrong.append(f"{_named(row)}: epoch {row['epoch']}, not {epoch}")
        size = image_size_at(epoch, record.config.data)
        if row.get("data/image_size") != size:
            wrong.append(f"{_named(row)}: data/image_size {row.get('data/image_size')}, not {size}")
        if row["kind"] == "train" and not math.isclose(row.get("train/lr", math.nan), lr_at(step - 1), rel_tol=_PURE):
            wrong.append(f"{_named(row)}: train/lr {row.get('train/lr')}, and the schedule says {lr_at(step - 1)}")
    return check("rate, epochs and image sizes", wrong, f"{len(record.metrics):,} rows are as the configuration has it")


def loss_check(record: RunRecord, arithmetic: Arithmetic) -> Check:
    """Look whether every row's training loss is the mean of its steps' in the ledger.

    The meter adds up an epoch in float64 and subtracts what the row before knew of it, so the bound is a rounding of the epoch's
    sum so far for each of its micro-batches.
    """
    loss_at = dict(zip(record.ledger["step"].tolist(), record.ledger["loss"].tolist(), strict=True))
    wrong, checked = [], 0
    for row, first in windows_of(record.metrics, arithmetic):
        steps = range(first + 1, row["step"] + 1)
        losses = [loss_at[step] for step in steps if step in loss_at]
        if len(losses) < len(steps):
            continue  # the check of steps tells
        begin = (row["step"] - 1) // arithmetic.steps_per_epoch * arithmetic.steps_per_epoch
        so_far = sum(abs(loss_at.get(step, 0.0)) for step in range(begin + 1, row["step"] + 1))
        slots = (row["step"] - begin) * arithmetic.accumulation * arithmetic.world_size
        bound = 2 * _EPS * (slots + 8) * so_far / len(steps)
        mean = math.fsum(losses) / len(steps)
        checked += 1
        if not abs(row.get("train/loss", math.nan) - mean) <= bound:
            wrong.append(
                f"{_named(row)}: train/loss {row.get('train/loss')}, and the ledger's steps {first + 1}-{row['step']}: {mean}"
            )
    return check("losses against the ledger", wrong, f"{checked:,} rows are their steps' means")


def count_check(record: RunRecord, arithmetic: Arithmetic) -> Check:
    """Look whether accuracies are whole numbers of hits, and an epoch's the sum of its windows'."""
    wrong: list[str] = []
    sums: dict[str, float] = {}
    whole = True  # whether the epoch's windows are all there
    for row, first in windows_of(record.metrics, arithmetic):
        images = (row["step"] - first) * arithmetic.batch_size
        hits = {key: row.get(key, math.nan) * images / 100 for key in ("train/acc1", "train/acc5")}
        wrong += _wrong_counts(row, hits, images)
        bad = {"data/bad_images": float(row.get("data/bad_images", math.nan))}
        if row["kind"] == "train":
            whole = whole and (first % arithmetic.steps_per_epoch == 0 or bool(sums))
            sums = {key: sums.get(key, 0.0) + value for key, value in (hits | bad).items()}
            continue
        for key, value in (hits | bad).items():
            if whole and sums and not abs(sums[key] - value) < 0.5:
                wrong.append(f"{_named(row)}: {key} is of {value:.2f} images, and the epoch's windows of {sums[key]:.2f}")
        sums, whole = {}, True
    return check("hits", wrong, "whole numbers, and epochs are the sums of their windows")


def _wrong_counts(row: Row, hits: dict[str, float], images: int) -> Iterator[str]:
    for key, value in hits.items():
        if not (abs(value - round(value, 0)) <= _WHOLE * max(1.0, images / 1e6) if math.isfinite(value) else False):
            yield f"{_named(row)}: {key} {row.get(key)} is no whole number of {images:,} images"
    if not 0 <= hits["train/acc1"] <= hits["train/acc5"] <= images:
        yield f"{_named(row)}: train/acc1 {row.get('train/acc1')} and train/acc5 {row.get('train/acc5')} cannot both be"


def time_check(record: RunRecord, arithmetic: Arithmetic) -> Check:
    """Look whether clocks only go forward, and each window's throughput is its images by its time."""
    wrong = []
    before = 0.0
    for row, first in windows_of([row for row in record.metrics if row["kind"] == "train"], arithmetic):
        elapsed, rate = (float(row.get(f"time/{key}", math.nan)) for key in ("elapsed_seconds", "images_per_second"))
        seconds, images = elapsed - before, (row["step"] - first) * arithmetic.batch_size
        if not seconds > 0:
            wrong.append(f"{_named(row)}: time/elapsed_seconds {elapsed} after {before}")
        elif not math.isclose(rate * seconds, images, rel_tol=_CLOCK):
            wrong.append(f"{_named(row)}: time/images_per_second {rate:.6g}, and {images:,} images took {seconds:.6g} s")
        if not 0 <= row.get("time/data_wait_fraction", math.nan) <= 1.001:
            wrong.append(f"{_named(row)}: time/data_wait_fraction {row.get('time/data_wait_fraction')}")
        before = elapsed
    return check("times", wrong, "clocks go forward, throughputs are images by seconds")


def epochs_check(record: RunRecord, config: Config, arithmetic: Arithmetic, num_val: int) -> Check:
    """Look whether every epoch has its one row, evaluated where it is due, with whole numbers of hits."""
    a_epoch = arithmetic.steps_per_epoch
    epochs = [row for row in record.metrics if row["kind"] == "epoch"]
    done = int(record.ledger["step"][-1]) // a_epoch
    wrong = [f"{_named(row)} is not at an epoch's end" for row in epochs if row["step"] % a_epoch]
    numbers = [row["step"] // a_epoch for row in epochs]
    first = -(-int(record.ledger["step"][0]) // a_epoch)
    expected = list(range(first, done + 1))
    short = record.status.get("status") != "finished" and numbers == expected[:-1]  # ended before it was evaluated
    if numbers != expected and not short:
        wrong.append(f"epoch rows end at epochs {numbers[-8:]} (counted from 1), and the ledger has {done} whole epochs")
    for row in epochs:
        due = row["step"] // a_epoch % config.eval_every_epochs == 0 or row["step"] == arithmetic.total_steps
        if due != ("val/acc1" in row):
            wrong.append(f"{_named(row)}: {'not ' if due else ''}evaluated, against eval_every_epochs={config.eval_every_epochs}")
        for key in ("val/acc1", "val/acc5", "val/trained_acc1", "val/trained_acc5"):
            hits = row.get(key, 0.0) * num_val / 100
            if not abs(hits - round(hits)) <= _WHOLE * max(1.0, num_val / 1e6):
                wrong.append(f"{_named(row)}: {key} {row[key]} is no whole number of {num_val:,} images")
    return check("epochs", wrong, f"{len(epochs)} epochs, each with its row")


def windows_of(rows: Sequence[Row], arithmetic: Arithmetic) -> Iterator[tuple[Row, int]]:
    """Yield every row with the step after which what it is a mean of begins."""
    before = 0
    for row in rows:
        if row["kind"] == "epoch":
            yield row, row["step"] - arithmetic.steps_per_epoch
        elif row["step"] > before:
            yield row, before
            before = row["step"]


def _named(row: Row) -> str:
    return f"step {row['step']:,} ({row['kind']})"
