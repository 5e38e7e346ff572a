"""A file that only grows: rows are handed to the system at once, wait where the disk is full, and are sealed when synced."""

import hashlib
import os
import threading
from pathlib import Path

from loguru import logger

from src.tracking.seal import Seal, read_seals, write_seals


class Appended:
    """Appends to a file, so that a kill loses nothing.

    Args:
        path: made if it does not exist.

    Raises:
        OSError: it cannot be opened or read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed in close)
        self._unwritten = b""
        written = path.read_bytes()
        self._length, self._hash = len(written), hashlib.sha256(written)
        self._sealed = read_seals(path)
        self._lock = threading.Lock()  # rows are logged by one thread and made to last by another

    def append(self, data: bytes) -> None:
        """Write whole rows."""
        with self._lock:
            self._unwritten += data
            self._write()

    def sync(self) -> None:
        """Wait until the rows are on disk, and seal them."""
        with self._lock:
            self._write()
            seals = [Seal(self._length, self._hash.hexdigest())]
        try:
            os.fsync(self._file.fileno())
            if self._sealed != seals:
                write_seals(self._path, seals)
                self._sealed = seals
        except OSError as error:
            logger.warning(f"{self._file.name} cannot be made to last: {error}. A power failure could lose rows.")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._write()
            self._file.close()

    def _write(self) -> None:
        """Write what is waiting. Where the disk is full it goes on waiting, for the next row."""
        try:
            while self._unwritten:
                written = self._file.write(self._unwritten)
                self._length += written
                self._hash.update(self._unwritten[:written])
                self._unwritten = self._unwritten[written:]
        except OSError as error:
            logger.warning(f"{self._file.name} cannot be written: {error}. Its rows wait in memory; free some space.")
