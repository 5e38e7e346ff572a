"""Tiny idx files with known pixels, and what the writer must make of them."""

import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from src.imagenet.fashion.fashion_mnist import CLASSES, Split, prepare
from src.imagenet.fashion.idx import IdxFile

PER_CLASS = {"train": 20, "val": 12}  # the writer tells its progress every 100 images: so in the middle of each split, too


class Tiny(NamedTuple):
    """Four idx files, and what is in them."""

    source: Path
    splits: tuple[Split, ...]
    images: dict[str, NDArray[np.uint8]]
    labels: dict[str, NDArray[np.uint8]]


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def write_idx(path: Path, array: NDArray[np.uint8]) -> IdxFile:
    data = idx_bytes(array)
    path.write_bytes(gzip.compress(data, 1))
    return IdxFile(path.name, array.shape, hashlib.md5(data).hexdigest())


def write_tiny(source: Path) -> Tiny:
    source.mkdir()
    splits, images, labels = [], {}, {}
    for seed, (name, per_class) in enumerate(PER_CLASS.items()):
        random = np.random.default_rng(seed)
        images[name] = random.integers(0, 256, (10 * per_class, 28, 28), dtype=np.uint8)
        labels[name] = random.permutation(np.repeat(np.arange(10, dtype=np.uint8), per_class))
        files = [
            write_idx(source / f"{name}-{what}.gz", array) for what, array in (("images", images[name]), ("labels", labels[name]))
        ]
        splits.append(Split(name, *files))
    return Tiny(source, tuple(splits), images, labels)


def write(tiny: Tiny, target: Path, *, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
    prepare(target, source=tiny.source, progress=progress, splits=tiny.splits)


def assert_whole(tiny: Tiny, target: Path) -> None:
    """Every image once, under its label's folder and its place's name, with its pixels; and nothing else."""
    assert sorted(path.name for path in target.iterdir()) == ["train", "val"]
    for split in tiny.splits:
        expected = {
            f"{CLASSES[label]}/{index:05d}.png": image
            for index, (image, label) in enumerate(zip(tiny.images[split.name], tiny.labels[split.name].tolist(), strict=True))
        }
        files = {str(path.relative_to(target / split.name)): path for path in (target / split.name).glob("*/*")}
        assert files.keys() == expected.keys()
        for name, path in files.items():
            with Image.open(path) as image:
                assert (image.format, image.mode) == ("PNG", "L")
                np.testing.assert_array_equal(np.asarray(image), expected[name])
