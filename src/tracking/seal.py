"""What a file's bytes were when they were written, in a small file beside it: so that a changed digit is noticed years later.

It does not guard against somebody who wants to deceive: who changes the file can change its seal.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from src.files import write_atomically


class Seal(NamedTuple):
    """The first so many bytes of a file, and their sha256 in hex."""

    length: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> "Seal":
        """Seal these bytes."""
        return cls(len(data), hashlib.sha256(data).hexdigest())

    def fits(self, data: bytes) -> bool:
        """Return whether a file still begins with the bytes that were sealed."""
        return len(data) >= self.length and Seal.of(data[: self.length]) == self


def seal_path(path: Path) -> Path:
    """Return `.metrics.jsonl.seal` for `metrics.jsonl`."""
    return path.with_name(f".{path.name}.seal")


def write_seals(path: Path, seals: Sequence[Seal]) -> None:
    """Replace the seals of a file. There are two while it is being replaced: of the old content and of the new.

    Raises:
        OSError: the seals before stand.
    """
    write_atomically(seal_path(path), json.dumps([seal._asdict() for seal in seals]).encode())


def read_seals(path: Path) -> list[Seal]:
    """Return the seals of a file; none where they are missing or damaged."""
    try:
        found = [Seal(entry["length"], entry["sha256"]) for entry in json.loads(seal_path(path).read_bytes())]
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        return []
    return found if all(isinstance(length, int) and length >= 0 and isinstance(text, str) for length, text in found) else []
