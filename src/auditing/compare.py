"""A replay against the record: bit for bit, or within what rounding does to this very stretch of training.

Training is chaotic: a difference in the last bit grows from step to step. So the bound is measured, not guessed: a window is
replayed a second time from weights that were moved by a rounding of the arithmetic's type, u, and where both replays have come
apart by d up to a step, the record may lie 32 d + 8 u of the value from the replay. At the first step after a checkpoint d is
next to nothing.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from src.auditing.replay import Replayed
from src.batch import Record

_TIMES, _FLOOR = 32, 8
_HITS = 4  # images that may fall on the other side of a decision, and two in ten thousand
_NORM = 1e-3  # relative: the norm of one step's gradient
_COMPUTED = ("train/", "val/", "data/", "augment/")
ROUNDING = {
    "fp64": 2.0**-53,
    "fp32": 2.0**-24,
    "bf16": 2.0**-12,
    "fp16": 2.0**-12,
}  # of a mean over images, where one has 2**-9 or 2**-11


def exact_differences(ledger: dict[int, Any], rows: Sequence[dict[str, Any]], replayed: Replayed) -> list[str]:
    """Return every place where the record is not what the replay computed, in order."""
    wrong: list[tuple[int, str]] = []
    for step in replayed.steps:
        claimed = ledger[step.step]
        if int(claimed["plan"]) != step.plan:
            wrong.append((step.step, f"step {step.step:,}: trained on other images, boxes or flips than the record's plan"))
        if not _same(float(claimed["loss"]), step.loss):
            wrong.append(
                (step.step, f"step {step.step:,}: the ledger's loss is {float(claimed['loss'])!r}, replayed {step.loss!r}")
            )
    for record, row in pairs(rows, replayed.records):
        for key in _keys(record, row):
            if not _same(row.get(key), record.values.get(key)):
                told = f"{key} is {row.get(key)!r}, replayed {record.values.get(key)!r}"
                wrong.append((record.step, f"step {record.step:,} ({record.kind} row): {told}"))
    return [text for _, text in sorted(wrong, key=lambda each: each[0])]


def bounded_differences(
    ledger: dict[int, Any],
    rows: Sequence[dict[str, Any]],
    replayed: Replayed,
    shaken: Replayed,
    *,
    rounding: float,
    batch_size: int,
    num_val: int,
) -> tuple[list[str], float]:
    """Return every place where the record lies further from the replay than rounding explains, and the largest bound on a loss.

    Args:
        ledger: row by step.
        rows: of metrics.jsonl.
        replayed: the replay.
        shaken: the same from weights that were moved by a rounding.
        rounding: u, of ROUNDING.
        batch_size: images a step.
        num_val: images of an evaluation.
    """
    wrong: list[tuple[int, str]] = []
    apart, widest = 0.0, 0.0
    for one, other in zip(replayed.steps, shaken.steps, strict=True):
        claimed = ledger[one.step]
        apart = max(apart, abs(one.loss - other.loss))
        bound = _TIMES * apart + _FLOOR * rounding * abs(one.loss)
        widest = max(widest, bound)
        if int(claimed["plan"]) != one.plan:
            wrong.append((one.step, f"step {one.step:,}: trained on other images, boxes or flips than the record's plan"))
        if not abs(float(claimed["loss"]) - one.loss) <= bound:
            told = f"the ledger's loss is {float(claimed['loss']):.9g}, replayed {one.loss:.9g} +- {bound:.2g}"
            wrong.append((one.step, f"step {one.step:,}: {told}"))
    others = {(record.kind, record.step): record for record in shaken.records}
    for record, row in pairs(rows, replayed.records):
        twin = others[record.kind, record.step]
        for key in _keys(record, row):
            value, other_value = record.values.get(key, math.nan), twin.values.get(key, math.nan)
            images = num_val if key.startswith("val/") else batch_size
            bound = _TIMES * abs(value - other_value) + _floor(key, value, images, rounding)
            if key in row and key in record.values and not abs(row[key] - value) <= max(bound, _TIMES * apart * _is_loss(key)):
                wrong.append(
                    (
                        record.step,
                        f"step {record.step:,} ({record.kind} row): {key} is {row[key]!r}, replayed {value!r} +- {bound:.2g}",
                    )
                )
    return [text for _, text in sorted(wrong, key=lambda each: each[0])], widest


def pairs(rows: Sequence[dict[str, Any]], records: Sequence[Record]) -> Iterator[tuple[Record, dict[str, Any]]]:
    """Yield a replay's rows with the record's of the same kind and step, where both are means since the same step before."""
    stored: dict[tuple[str, int], tuple[dict[str, Any], int | None]] = {}
    before: int | None = None
    for row in rows:
        stored[row["kind"], row["step"]] = (row, before)
        if row["kind"] == "train":
            before = row["step"]
    previous: int | None = None
    for record in records:
        found = stored.get((record.kind, record.step))
        if found is not None and (record.kind == "epoch" or previous in (None, found[1])):
            yield record, found[0]
        if record.kind == "train":
            previous = record.step


def by_step(ledger: NDArray[Any]) -> dict[int, Any]:
    """Return a ledger's rows by their step."""
    return {int(row["step"]): row for row in ledger}


def _keys(record: Record, row: dict[str, Any]) -> list[str]:
    return sorted(key for key in {*record.values, *row} if key.startswith(_COMPUTED))


def _same(one: object, other: object) -> bool:
    return one == other or (one != one and other != other)  # two that are not numbers


def _is_loss(key: str) -> bool:
    return key.endswith("loss")


def _floor(key: str, value: float, images: int, rounding: float) -> float:
    if key.endswith(("acc1", "acc5")):
        return 100 * (_HITS / images + 2e-4)
    if key == "train/grad_norm":
        return _NORM * abs(value)
    return _FLOOR * rounding * abs(value) + (1e-5 * abs(value) if key.startswith("val/") else 0.0)
