"""A .beton made with struct from FFCV's description alone, and sources to write from: nothing of src/data/beton is used."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.batch import DataError, Encoded
from src.data.sources.beton import BetonSource
from tests.pictures import encode, noise

PAGE = 2**21
HEAD = 24 + 2 * 1041
ROW = 24
DATA_AT = PAGE  # of a small file


class Sample(NamedTuple):
    """A JPEG's bytes, or pixels uint8 (H, W, 3)."""

    data: bytes | NDArray[np.uint8]
    width: int
    height: int
    label: int


def samples(count: int = 12, classes: int = 3) -> list[Sample]:
    """Small images of many sizes, every fourth as pixels; no two alike."""
    made = []
    for number in range(count):
        width, height = 20 + number, 16 + 2 * number
        pixels = number % 4 == 3
        data = noise(width, height, number) if pixels else encode("jpeg", width, height, number)
        made.append(Sample(data, width, height, number % classes))
    return made


def write_plain(path: Path, content: Sequence[Sample], *, table: bool = True, per_page: int = 5) -> Path:
    """Write the fields image and label; a new page after every so many samples; the table in no order."""
    metadata, rows, data = b"", [], b""
    for number, sample in enumerate(content):
        if number and number % per_page == 0:
            data += bytes(-len(data) % PAGE)
        raw = isinstance(sample.data, np.ndarray)
        payload = sample.data.tobytes() if raw else sample.data
        at = DATA_AT + len(data)
        metadata += struct.pack("<BHHQ3xq", raw, sample.width, sample.height, at, sample.label)
        rows.append(struct.pack("<QQQ", number, at, len(payload)))
        data += payload
    data += bytes(-len(data) % PAGE)
    header = struct.pack("<HHIQQ", 2, 2, PAGE, len(content), DATA_AT + len(data))
    head = header + descriptor(2, b"image") + descriptor(1, b"label") + metadata
    path.write_bytes(head + bytes(DATA_AT - len(head)) + data + b"".join(rows[::-1] if table else []))
    return path


def descriptor(type_id: int, name: bytes) -> bytes:
    return struct.pack("<B16s1024s", type_id, name, b"")


def patch(path: Path, at: int, form: str, *values: int) -> Path:
    """Overwrite some of a file."""
    with open(path, "r+b") as file:
        file.seek(at if at >= 0 else path.stat().st_size + at)
        file.write(struct.pack(form, *values))
    return path


def every(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.arange(len(labels))


def opened(path: Path, **options: int) -> BetonSource:
    return BetonSource(path, choose=every, **options)


def stored_bytes(encoded: Encoded) -> bytes:
    return encoded.data.tobytes() if isinstance(encoded.data, np.ndarray) else bytes(encoded.data)


class Listed:
    """Samples as a source, to write from; `bad` ones cannot be read."""

    def __init__(self, content: Sequence[Sample], classes: Sequence[str] = ("ant", "bee", "ça"), bad: Sequence[int] = ()) -> None:
        self.content, self.bad = content, bad
        self.classes = tuple(classes)
        self.labels = np.array([sample.label for sample in content], np.int64)
        self.sizes = np.array([(sample.width, sample.height) for sample in content], np.int32).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.content)

    def read(self, index: int) -> Encoded:
        if index in self.bad:
            raise DataError(f"{self.name(index)} cannot be read: no such file.")
        data, width, height, _ = self.content[index]
        return Encoded(data, "raw" if isinstance(data, np.ndarray) else "codestream", width, height)

    def name(self, index: int) -> str:
        return f"train/{index}.JPEG"


def quiet(done: int, total: int, size: int) -> None:
    pass
