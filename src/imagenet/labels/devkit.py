"""The classes of flat validation images by the devkit: its own numbers, translated by its own table. See src/data/tar/devkit.py."""

import os
from collections.abc import Mapping
from pathlib import Path

from src.batch import DataError
from src.data.tar.devkit import read_devkit
from src.imagenet.pieces import Labels

DEVKIT = "ILSVRC2012_devkit_t12"
_NAMES = (f"{DEVKIT}.tar.gz", f"{DEVKIT}.tgz", f"{DEVKIT}.tar", DEVKIT)
_REMEDY = f"Put {DEVKIT}.tar.gz there as it is published, or the folder made from it."


def find_devkit(folder: Path) -> Path | None:
    """Return the devkit's archive or folder, where one lies in this folder, or its files in data/."""
    found = next((folder / name for name in _NAMES if (folder / name).exists()), None)
    return found if found is not None or not (folder / "data/meta.mat").is_file() else folder


def devkit_labels(path: Path) -> Labels:
    """Return the class of every flat validation image, by its number.

    Raises:
        DataError: it cannot be used, or scipy is not there to read it.
    """
    devkit = read_devkit(path, _REMEDY)
    return {f"ILSVRC2012_val_{number:08d}": devkit.classes[label] for number, label in enumerate(devkit.labels, 1)}


def devkit_train_counts(path: Path) -> Mapping[str, int]:
    """Return how many training images each class folder has by the devkit; nothing where it does not tell.

    One that cannot be read tells nothing: where the classes of validation images are asked of it, it was refused before.
    """
    try:
        return read_devkit(path, _REMEDY).train_counts
    except DataError:
        return {}


def devkit_stamp(path: Path) -> list[object]:
    """Return what tells this devkit from another: name, size, mtime."""
    files = (
        [path] if path.is_file() else [file for file in (path / "data/meta.mat", path / DEVKIT / "data/meta.mat") if file.is_file()]
    )
    states = [os.stat(file) for file in files]
    return [str(path), *([state.st_size, state.st_mtime_ns] for state in states)]
