"""CIFAR-10's batches (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html) as PNG files, from either published form.

Binary: rows of one byte of label and 3,072 of pixels. Python: pickles of a dict, `data` uint8 (n, 3072) and `labels`. Pixels are
1,024 red ones, row by row, then green, then blue. Both give byte-identical files.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.imagenet.pieces import Piece
from src.imagenet.sets.pickled import read_pickle
from src.imagenet.sets.png import png_bytes

# The digit keeps the order of the folders that of the labels.
CLASSES = (
    "0_airplane",
    "1_automobile",
    "2_bird",
    "3_cat",
    "4_deer",
    "5_dog",
    "6_frog",
    "7_horse",
    "8_ship",
    "9_truck",
)
WORDS = {name: name[2:] for name in CLASSES}
PER_BATCH = 10_000
_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
ROW_BYTES = 1 + _PIXELS
_BATCH = re.compile(r"(?:.*/)?(?:data_batch_([1-5])|(test)_batch)(\.bin)?", re.ASCII)


class Batch(NamedTuple):
    """Which of the six batches a file holds.

    Attributes:
        number: 1 to 5 of the training images, 0 of the test images.
        binary: the binary form, else the pickled one.
    """

    number: int
    binary: bool

    @property
    def file(self) -> str:
        """Its file name in the publication."""
        stem = f"data_batch_{self.number}" if self.number else "test_batch"
        return stem + (".bin" if self.binary else "")


def batches(*, binary: bool) -> list[Batch]:
    """List all six."""
    return [Batch(number, binary) for number in (1, 2, 3, 4, 5, 0)]


def batch_of(path: str) -> Batch | None:
    """Tell from a path which batch it is; None for other files (the meta file, the read-me)."""
    match = _BATCH.fullmatch(path)
    return None if match is None else Batch(int(match[1] or 0), match[3] is not None)


class Images(NamedTuple):
    """A batch's content.

    Attributes:
        labels: uint8 (n,).
        pixels: uint8 (n, 3072).
    """

    labels: NDArray[np.uint8]
    pixels: NDArray[np.uint8]


def read_batch(batch: Batch, data: bytes) -> Images:
    """Read a batch's file.

    Raises:
        ValueError: it is no such batch; the message says why, without the file's name.
    """
    return _read_binary(data) if batch.binary else _read_pickled(data)


def pieces_of(batch: Batch, images: Images, start: int) -> Iterator[Piece]:
    """Yield a batch's images from number `start` on; the test images are the validation split.

    Names are places in the split, 00000 to 49999 and 00000 to 09999.
    """
    first = PER_BATCH * (batch.number - 1) if batch.number else 0
    for row in range(start, len(images.labels)):
        image = images.pixels[row].reshape(3, _SIDE, _SIDE).transpose(1, 2, 0)
        yield Piece("train" if batch.number else "val", CLASSES[images.labels[row]], f"{first + row:05d}.png", png_bytes(image))


def _read_binary(data: bytes) -> Images:
    if not data or len(data) % ROW_BYTES:
        raise ValueError(f"has {len(data):,} bytes, which is no number of images of {ROW_BYTES:,} bytes each")
    rows = np.frombuffer(data, np.uint8).reshape(-1, ROW_BYTES)
    return _checked(rows[:, 0], rows[:, 1:])


def _read_pickled(data: bytes) -> Images:
    found = read_pickle(data)
    pixels = found.get("data", found.get(b"data")) if isinstance(found, dict) else None
    labels = found.get("labels", found.get(b"labels")) if isinstance(found, dict) else None
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, list) or pixels.ndim != 2 or pixels.shape[1] != _PIXELS:
        raise ValueError(f"is no batch of CIFAR-10: no `data` of n x {_PIXELS:,} bytes, or no list of `labels`")
    if not all(type(label) is int and 0 <= label < len(CLASSES) for label in labels):
        raise ValueError("holds labels beyond 0 to 9")
    return _checked(np.array(labels, np.uint8), pixels)


def _checked(labels: NDArray[np.uint8], pixels: NDArray[np.uint8]) -> Images:
    if len(labels) != len(pixels):
        raise ValueError(f"holds {len(labels):,} labels for {len(pixels):,} images")
    if not 0 < len(labels) <= PER_BATCH:
        raise ValueError(f"holds {len(labels):,} images, not {PER_BATCH:,}")
    if labels.max() >= len(CLASSES):
        raise ValueError(f"holds the label {labels.max()}: they go from 0 to 9")
    return Images(labels, pixels)
