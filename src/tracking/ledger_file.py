"""ledger.bin in the run's folder: a row of 32 bytes for every step, after 16 that say what it is. Sealed like metrics.jsonl.

A row is little-endian: step and world_size uint32, plan uint64, loss float64, local_batch_size and threads uint16 (65,535 stands
for more), arithmetic uint32; see src.batch.StepRow. 450,000 steps are 14 MB. The record of
training stands in metrics.jsonl: a ledger that is missing, damaged or cannot be written costs a warning, never the run.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from src.batch import StepRow
from src.files import write_atomically
from src.tracking.appended import Appended
from src.tracking.seal import Seal, read_seals, write_seals

NAME = "ledger.bin"
MAGIC = b"step-ledger v1\r\n"
ROW = np.dtype(
    [
        ("step", "<u4"),
        ("world_size", "<u4"),
        ("plan", "<u8"),
        ("loss", "<f8"),
        ("local_batch_size", "<u2"),
        ("threads", "<u2"),
        ("arithmetic", "<u4"),
    ]
)
_CAP = 2**16 - 1


class LedgerFile:
    """Appends rows; on the rank that leads.

    Raises:
        OSError: it cannot be opened or read.
    """

    def __init__(self, path: Path) -> None:
        self._file = Appended(path)

    def keep(self, rows: Sequence[StepRow]) -> None:
        """Append rows. Never raises for a disk that refuses them: they wait for the next."""
        self._file.append(pack(rows).tobytes())

    def sync(self) -> None:
        """Wait until the rows are on disk, and seal them."""
        self._file.sync()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def pack(rows: Sequence[StepRow]) -> NDArray[np.void]:
    """Return (N,) of type ROW."""
    packed = np.zeros(len(rows), ROW)
    for place, row in enumerate(rows):
        capped = {"local_batch_size": min(row.local_batch_size, _CAP), "threads": min(row.threads, _CAP)}
        for name, value in (row._asdict() | capped).items():
            packed[name][place] = value
    return packed


def open_ledger(path: Path, *, step: int) -> LedgerFile | None:
    """Go on with a ledger from a step: later rows, which will be written again, are cut off. What is wrong with it is told.

    Args:
        path: of the file; a new one is begun where there is none.
        step: of the state that the run goes on from, or 0.

    Returns:
        None, with a warning, where it cannot be read or written: then this process keeps none.
    """
    try:
        data = path.read_bytes() if path.exists() else b""
        seals = read_seals(path)
        rows = read_rows(data)
        kept = rows[rows["step"] <= step]
        content = MAGIC + kept.tobytes()
        _tell_damage(path, data, seals, kept, step)
        if content != data:
            write_seals(path, [*seals, Seal.of(content)])
            write_atomically(path, content)
        return LedgerFile(path)
    except OSError as error:
        logger.warning(f"{path} cannot be read or written ({error.strerror}): this run keeps no ledger, and cannot be audited.")
        return None


def read_rows(data: bytes) -> NDArray[np.void]:
    """Return the complete rows of a ledger's bytes as (N,) of type ROW; none where they are no ledger."""
    if not data.startswith(MAGIC):
        return np.zeros(0, ROW)
    whole = (len(data) - len(MAGIC)) // ROW.itemsize
    return np.frombuffer(data, ROW, count=whole, offset=len(MAGIC))


def _tell_damage(path: Path, data: bytes, seals: list[Seal], kept: NDArray[np.void], step: int) -> None:
    found = []
    if seals and not any(seal.fits(data) for seal in seals):
        found.append("its first bytes are not those that were sealed")
    if data and not data.startswith(MAGIC):
        found.append("it is no ledger, and begun anew")
    last = int(kept["step"][-1]) if len(kept) else 0
    if last != step:
        found.append(f"it ends at step {last:,}, and the run goes on from step {step:,}")
    elif len(kept) and not np.array_equal(kept["step"], np.arange(1, step + 1)):
        found.append("steps are missing")
    if found:
        logger.warning(f"{path} IS NOT COMPLETE: {'; '.join(found)}. Training goes on exactly; src.audit will tell what it covers.")
