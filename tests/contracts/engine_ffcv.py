"""Any source as a .beton, for FFCV: bytes and pixels as they are, damaged ones too, under the names that the source gives them."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from src.batch import DataError, Encoded, Source
from src.data.beton.format import ALLOCATION, IMAGE_ID, INT_ID, JPEG, MIN_PAGE, RAW, Field, Layout
from src.data.beton.pages import Pages

_FIELDS = (Field("image", IMAGE_ID), Field("label", INT_ID))


class Converted:
    """What FFCV must know of a .beton, with the names and the errors of the source that it was made from. Opens nothing itself."""

    def __init__(self, path: Path, original: Source) -> None:
        self.path, self._original, self.ids = path, original, np.arange(len(original))
        self.classes, self.labels, self.sizes = original.classes, original.labels, original.sizes

    def __len__(self) -> int:
        return len(self._original)

    def read(self, index: int) -> Encoded:
        return self._original.read(index)

    def name(self, index: int) -> str:
        return self._original.name(index)


@contextlib.contextmanager
def converted(source: Source) -> Iterator[Converted]:
    """Write a .beton, which is deleted behind the block: who has mapped it keeps it."""
    with tempfile.TemporaryDirectory(prefix="contract-") as folder:
        path = Path(folder) / "train.beton"
        write_as_is(source, path)
        yield Converted(path, source)


def write_as_is(source: Source, path: Path) -> Path:
    """Write every sample as the source hands it out, of the sizes that its index gives, and junk where it cannot be read."""
    rows: Any = np.zeros(len(source), Layout(_FIELDS, 0, 0, 0, 0).row)
    table: Any = np.zeros(len(source), ALLOCATION)
    with open(path, "w+b") as file:
        pages = Pages(file, _FIELDS, len(source), MIN_PAGE)
        for index, (width, height) in enumerate(source.sizes.tolist()):
            try:
                data = source.read(index).data
            except DataError:
                data = b"unreadable"
            raw = isinstance(data, np.ndarray)
            stored = data.tobytes() if isinstance(data, np.ndarray) else bytes(data)
            start = pages.place(stored)
            rows[index] = ((RAW if raw else JPEG, width, height, start), source.labels[index])
            table[index] = (index, start, len(stored))
        pages.finish(rows, table)
    return path
