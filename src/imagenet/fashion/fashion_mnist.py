"""Fashion-MNIST as an ImageFolder of PNG files: `<target>/{train,val}/<class>/<place in the original file>.png`.

A split appears under its name in one rename, when all of it is on the disk: a killed attempt is never taken for a finished one.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from src.config import ConfigError, Problem
from src.files import sync_folder
from src.imagenet.fashion.idx import IdxFile, read_idx
from src.imagenet.fashion.listing import fault_of, names_in
from src.imagenet.fashion.origins import find_files, missing_files
from src.imagenet.fashion.partial import alone_in, partial_folder

STAGE = "the data set"
# The digit keeps the order of the folders that of the labels.
CLASSES = (
    "0_t-shirt_top",
    "1_trouser",
    "2_pullover",
    "3_dress",
    "4_coat",
    "5_sandal",
    "6_shirt",
    "7_sneaker",
    "8_bag",
    "9_ankle_boot",
)
_HARMLESS = ("lost+found",)  # of a volume of its own; so is whatever begins with a dot, such as the trainer's index
_TELL_EVERY = 100


class Split(NamedTuple):
    """One split, and its two files."""

    name: str
    images: IdxFile
    labels: IdxFile

    @property
    def per_class(self) -> int:
        """How many images each class has."""
        return self.labels.shape[0] // len(CLASSES)


# md5 of the content: with the original name, time and level, gzip makes of it the files of the sums published by Zalando.
SPLITS = (
    Split(
        "train",
        IdxFile("train-images-idx3-ubyte.gz", (60_000, 28, 28), "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
        IdxFile("train-labels-idx1-ubyte.gz", (60_000,), "9018921c3c673c538a1fc5bad174d6f9"),
    ),
    Split(
        "val",
        IdxFile("t10k-images-idx3-ubyte.gz", (10_000, 28, 28), "8181f5470baa50b63fa0f6fddb340f0a"),
        IdxFile("t10k-labels-idx1-ubyte.gz", (10_000,), "15d484375f8d13e6eb1aabb0c3f46965"),
    ),
)


def prepare(target: Path, *, source: Path | None, progress: Callable[[int, int], None], splits: Sequence[Split] = SPLITS) -> None:
    """Write the splits that are not there yet. Safe to kill at any instant, and to start again.

    Args:
        target: the ImageFolder's root.
        source: holds the gzipped idx files; None looks for them, see origins.py.
        progress: called with (images done, images to do).
        splits: what to write.

    Raises:
        ConfigError: the target cannot be used, or the files cannot be had or are not what they should be.
    """
    missing_splits(target, splits)  # complain before the folder is made, or waited for
    try:
        with alone_in(target), partial_folder(target) as partial:
            missing = missing_splits(target, splits)
            if missing:  # and not written by the process that was waited for
                _write_all(missing, target, partial, source, progress)
    except OSError as error:
        fix = f"cannot be written ({error.strerror}). It takes about 300 MB and 70,000 files; choose another with target=<folder>."
        raise ConfigError(STAGE, [Problem("target", str(target), fix)]) from error


def missing_splits(target: Path, splits: Sequence[Split] = SPLITS) -> list[Split]:
    """List the splits that are not there: none, if all is done.

    Raises:
        ConfigError: something else stands there. It is never touched.
    """
    try:
        names = names_in(target)
    except FileNotFoundError:
        return list(splits)
    except OSError as error:
        fix = f"is no folder that can be read ({error.strerror}). Choose another with target=<folder>."
        raise ConfigError(STAGE, [Problem("target", str(target), fix)]) from error
    known = [split.name for split in splits]
    strangers = [name for name in names if name not in known and name not in _HARMLESS and not name.startswith(".")]
    problems = []
    if strangers:
        fix = f"already holds something else ({', '.join(strangers[:3])}). Choose a new folder with target=<folder>."
        problems.append(Problem("target", str(target), fix))
    for split in splits:
        fault = fault_of(target / split.name, CLASSES, split.per_class) if split.name in names else None
        if fault is not None:
            problems.append(Problem(str(target / split.name), None, f"{fault}. Move it away, and run this again."))
    if problems:
        raise ConfigError(STAGE, problems)
    return [split for split in splits if split.name not in names]


def _write_all(
    splits: Sequence[Split], target: Path, partial: Path, source: Path | None, progress: Callable[[int, int], None]
) -> None:
    names = [file.name for split in splits for file in (split.images, split.labels)]
    scratch = partial / "downloads"
    scratch.mkdir()
    arrays = _read(splits, _given(source, names) if source is not None else find_files(names, scratch))
    shutil.rmtree(scratch)
    done, total = 0, sum(len(labels) for _, labels in arrays)
    for split, (images, labels) in zip(splits, arrays, strict=True):
        for written in _write(partial / split.name, images, labels):
            progress(done + written, total)
        done += len(labels)
        _publish(partial / split.name, target / split.name, split)


def _given(source: Path, names: Sequence[str]) -> Path:
    lacking = missing_files(names, source)
    if lacking:
        fix = f"no {', '.join(lacking)} there. Name the folder that holds {', '.join(names)}."
        raise ConfigError(STAGE, [Problem("source", str(source), fix)])
    return source


def _read(splits: Sequence[Split], folder: Path) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Read images (N, 28, 28) and labels (N,) of every split."""
    arrays, problems = [], []
    for split in splits:
        pair = []
        for file in (split.images, split.labels):
            try:
                pair.append(read_idx(folder, file))
            except ValueError as error:
                problems.append(Problem(str(folder / file.name), None, f"{error}. Replace it."))
        if len(pair) == 2:
            counts = np.bincount(pair[1], minlength=len(CLASSES)).tolist()
            if counts != [split.per_class] * len(CLASSES):
                fix = f"has {counts} labels a class, not {split.per_class:,} of each. Replace it."
                problems.append(Problem(str(folder / split.labels.name), None, fix))
            arrays.append((pair[0], pair[1]))
    if problems:
        raise ConfigError(STAGE, problems)
    return arrays


def _write(folder: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Iterator[int]:
    """Write one file an image; yield now and then how many are written.

    In one thread: for images this small Pillow holds the GIL, and two threads took 3.6 s for 10,000 where one took 2.1 s (2 cores).
    """
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for index, label in enumerate(labels.tolist()):
        Image.fromarray(images[index]).save(f"{folder}/{CLASSES[label]}/{index:05d}.png", compress_level=1)
        if (index + 1) % _TELL_EVERY == 0:
            yield index + 1
    yield len(labels)


def _publish(written: Path, final: Path, split: Split) -> None:
    """Give a split its name, once all of it is on the disk."""
    fault = fault_of(written, CLASSES, split.per_class)
    assert fault is None, fault
    os.sync()  # once for all, where 70,000 calls of fsync would take minutes
    os.replace(written, final)
    sync_folder(final.parent)
