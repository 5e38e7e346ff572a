"""metrics.jsonl: one JSON object a record. The truth about a run; every other tracker may fail.

Beside it stands a seal, written after every fsync: how many bytes there were, and their sha256. A run that goes on says so where
the file does not begin with them any more, be it a lost line or a changed digit.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loguru import logger

from src.batch import Record
from src.config import ConfigError, Problem
from src.files import write_atomically
from src.tracking.appended import Appended
from src.tracking.seal import Seal, read_seals, seal_path, write_seals

_KINDS = ("train", "epoch")
_SHOWN = 5


class JsonlTracker:
    """Appends to the file, and hands every row to the system at once, so that a kill loses none."""

    def __init__(self, path: Path) -> None:
        self._file = Appended(path)

    def log(self, record: Record) -> None:
        """Write one row."""
        row = {"kind": record.kind, "step": record.step, "epoch": record.epoch, **record.values}
        self._file.append(json.dumps(row).encode() + b"\n")

    def advance(self, step: int) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Wait until the rows are on disk, and seal them."""
        self._file.sync()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the complete rows; a partial last line, and what is no row of ours, are left out."""
    return [row for _, row in _lines(path.read_bytes()) if row is not None] if path.exists() else []


def cut_back(path: Path, keep: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Drop the rows that a resumed run will write again, and return the rest. What was damaged or altered is told.

    The bytes of what is kept stay as they are. The seal of the new content is written before the content, beside that of the old
    one: whenever the process dies, one of the two fits.

    Raises:
        ConfigError: if the file cannot be read or written.
    """
    try:
        exists = path.exists()
        data = path.read_bytes() if exists else b""
        lines = _lines(data)
        kept = [(line, row) for line, row in lines if row is not None and keep(row)]
        rows = [row for _, row in kept]
        seals = read_seals(path)
        _tell_damage(path, data, lines, seals, began=bool(kept))
        content = b"".join(line + b"\n" for line, _ in kept)
        if content != data or not exists:
            write_seals(path, [*seals, Seal.of(content)])
            write_atomically(path, content)
    except OSError as error:
        fix = f"cannot be read or written ({error.strerror}). Make it a writable file on a disk with space, or move it away."
        raise ConfigError("the run's folder", [Problem(str(path), None, fix)]) from error
    return rows


def elapsed_seconds(rows: Sequence[dict[str, Any]]) -> float:
    """Return how long was trained until the last of these rows; 0 where none tells."""
    told = (float(row.get("time/elapsed_seconds", 0.0)) for row in rows)
    return max((seconds for seconds in told if math.isfinite(seconds)), default=0.0)


def _lines(data: bytes) -> list[tuple[bytes, dict[str, Any] | None]]:
    """Return every complete line, and its row; None for a line that is no row of ours."""
    return [(line, _row(line)) for line in data.split(b"\n")[:-1]]


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        if not isinstance(row, dict) or row.get("kind") not in _KINDS:
            return None
        figures = [value for key, value in row.items() if key != "kind"]
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in figures):
            return None
        for value in figures:
            float(value)  # an integer may be too large for it
        whole = isinstance(row["step"], int) and isinstance(row["epoch"], int)
    except (ValueError, RecursionError, KeyError, TypeError, OverflowError):
        return None
    return row if whole and row["step"] >= 0 and row["epoch"] >= 0 else None


def _tell_damage(
    path: Path, data: bytes, lines: list[tuple[bytes, dict[str, Any] | None]], seals: list[Seal], *, began: bool
) -> None:
    """Warn of lines that are no rows, of rows out of order, and of bytes that are not those that were written."""
    found = [f"line {number} is no row" for number, (_, row) in enumerate(lines, start=1) if row is None]
    step = 0
    for number, (_, row) in enumerate(lines, start=1):
        if row is not None:
            if row["step"] < step:
                found.append(f"line {number} goes back from step {step} to {row['step']}")
            step = row["step"]
    if seals and not any(seal.fits(data) for seal in seals):
        longest = max(seal.length for seal in seals)
        short = (
            f"of {longest:,} bytes {len(data):,} are left" if len(data) < longest else f"its first {longest:,} bytes were altered"
        )
        found.insert(0, short)
    elif began and not seals:
        found.insert(0, f"{seal_path(path).name} is missing or damaged, so that a changed figure would not be seen")
    if found:
        more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        logger.warning(
            f"{path} IS NOT WHAT WAS WRITTEN: {', '.join(found[:_SHOWN])}{more}. Training goes on exactly, from the checkpoint; "
            "the record of what came before is not to be trusted. Restore it from a copy."
        )
