"""metrics.jsonl: one JSON object a record. The truth about a run; every other tracker may fail."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loguru import logger

from src.batch import Record
from src.files import write_atomically


class JsonlTracker:
    """Appends to the file, and hands every row to the system at once, so that a kill loses none."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed in close)
        self._unwritten = b""

    def log(self, record: Record) -> None:
        """Write one row."""
        row = {"kind": record.kind, "step": record.step, "epoch": record.epoch, **record.values}
        self._unwritten += json.dumps(row).encode() + b"\n"
        self._write()

    def advance(self, step: int) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Wait until the rows are on disk."""
        self._write()
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            logger.warning(f"{self._file.name} cannot be made to last: {error}. A power failure could lose rows.")

    def close(self) -> None:
        """Close the file."""
        self._write()
        self._file.close()

    def _write(self) -> None:
        """Write what is waiting. Where the disk is full it goes on waiting, for the next row."""
        try:
            while self._unwritten:
                written = self._file.write(self._unwritten)
                self._unwritten = self._unwritten[written:]
        except OSError as error:
            logger.warning(f"{self._file.name} cannot be written: {error}. Its rows wait in memory; free some space.")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the complete rows; a partial last line is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def cut_back(path: Path, keep: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Drop the rows that a resumed run will write again, and return the rest."""
    rows = [row for row in read_rows(path) if keep(row)]
    write_atomically(path, b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    return rows
