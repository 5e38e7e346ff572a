"""`train/<wnid>/*.JPEG` (or class tars) and a flat `val/`, whose classes the devkit or a list tells; `test/` is kept apart."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from src.batch import DataError
from src.config import ConfigError, Problem
from src.config.prepare import PrepareConfig
from src.imagenet.folder_units import read_flat, read_train
from src.imagenet.labels.devkit import devkit_labels, devkit_stamp, devkit_train_counts, find_devkit
from src.imagenet.labels.lists import find_lists, labels_from, numbers_from
from src.imagenet.layouts.official import alone_is_wanted
from src.imagenet.names import CLASS_TAR, TEST, VAL
from src.imagenet.pieces import Found, Labels
from src.imagenet.published import WHERE

STAGE = "the source"
_Read = TypeVar("_Read")
_NAMES = {
    "train": ("train", "ILSVRC2012_img_train"),
    "val": ("val", "valid", "validation", "ILSVRC2012_img_val"),
    "test": ("test", "ILSVRC2012_img_test_v10102019", "ILSVRC2012_img_test"),
}
_KAGGLES = ("ILSVRC", "Data", "CLS-LOC")  # a tree that tells more about itself: layouts/kaggle.py
_LOOKED = 200  # names of a folder that are looked at
_MOST_INNER = 20  # folders that are looked into for the tree


def looks_like(source: Path) -> bool:
    """Tell whether its val is flat, or its train holds class tars."""
    try:
        return _root(source) is not None
    except OSError:
        return False


def find(source: Path, config: PrepareConfig) -> Found:
    """List the folders and read what tells the validation classes.

    Raises:
        ConfigError: something is missing, is not what its name says, or the classes cannot be known; every problem at once.
    """
    root = _root(source) or source
    train, val, test = (_split(root, split) for split in ("train", "val", "test"))
    problems = [
        Problem("source", str(root), f"no {split}/ is there: {what}. Images: {WHERE}.")
        for split, folder, other, what in (
            ("train", train, val, "a folder with class folders such as n01440764/"),
            ("val", val, train, "a folder with ILSVRC2012_val_00000001.JPEG and so on"),
        )
        if folder is None and not (other is not None and alone_is_wanted(config, split))
    ]
    try:
        trained = read_train(train, problems) if train is not None else None
        flat = [
            *(read_flat(val, "val", VAL, problems) if val is not None else []),
            *(read_flat(test, "test", TEST, problems) if test is not None else []),
        ]
        labels, notes, stamp = _classes(root, val, trained.classes if trained is not None else (), problems)
    except OSError as error:
        problems.append(Problem("source", error.filename or str(root), f"cannot be read ({error.strerror})."))
    if problems:
        raise ConfigError(STAGE, problems)
    return Found(
        layout="folders",
        units=[*(trained.units if trained is not None else ()), *flat],
        archives=trained.archives if trained is not None else [],
        stamp=[
            str(root.resolve()),
            trained.stamp if trained is not None else None,
            [[run.name, len(run.names)] for run in flat],
            stamp,
        ],
        labels=lambda side: labels,
        words=lambda side: {},
        listed=lambda side: None,
        notes=notes,
        train_counts=partial(devkit_train_counts, devkit) if (devkit := find_devkit(root)) is not None else None,
    )


def _classes(root: Path, val: Path | None, classes: Sequence[str], problems: list[Problem]) -> tuple[Labels, list[str], object]:
    """Read every file that tells the validation classes; they must agree. Returns labels, notes, and the files' state."""
    if val is None:
        return {}, [], None
    told: list[tuple[Path, Labels]] = []
    labels: Labels | None
    state: list[object] = []
    found = len(problems)
    devkit = find_devkit(root)
    if devkit is not None:
        labels = _try(partial(devkit_labels, devkit), devkit, problems)
        told += [(devkit, labels)] if labels is not None else []
        state.append(devkit_stamp(devkit))

    lists, trained = _try(lambda: find_lists([root, val]), root, problems) or ([], [])
    for each in lists:
        state.append([str(each.path), os.stat(each.path).st_size, os.stat(each.path).st_mtime_ns])
        if not each.numbered or devkit is None:  # what the devkit tells needs no numbers that somebody copied
            numbers = numbers_from(trained) if each.numbered else {}
            labels = _try(partial(labels_from, each, classes, numbers), each.path, problems)
            told += [(each.path, labels)] if labels is not None else []
    if not told:
        if len(problems) == found:
            fix = "nothing tells the classes of the flat images in val/. Put ILSVRC2012_devkit_t12.tar.gz there, or val.txt "
            problems.append(Problem("source", str(root), f"{fix}with lines as 'ILSVRC2012_val_00000001.JPEG n01751748'. {WHERE}."))
        return {}, [], state
    (first, labels), *others = told
    for path, other in others:
        differing = next((stem for stem, wnid in other.items() if labels.get(stem, wnid) != wnid), None)
        if differing is not None:
            fix = f"calls {differing} {other[differing]}, and {first.name} calls it {labels[differing]}. Move the wrong one away."
            problems.append(Problem(str(path), None, fix))
    agreeing = f", and {', '.join(path.name for path, _ in others)} agrees" if others else ""
    return labels, [f"the validation classes come from {first.name}{agreeing}"], state


def _try(read: Callable[[], _Read], path: Path, problems: list[Problem]) -> _Read | None:
    try:
        return read()
    except DataError as error:
        problems.append(Problem("source", str(path), str(error).removeprefix(f"{path} ")))
    return None


def _root(source: Path) -> Path | None:
    """Return the folder that holds train and val: the source, the one above it, or one in it."""
    if not source.is_dir():
        return None
    above = [source.parent] if any(source.name in names for names in _NAMES.values()) else []
    with os.scandir(source) as entries:
        inner = [Path(entry.path) for entry in islice(entries, _LOOKED) if entry.name[0] != "." and entry.is_dir()]
    return next((root for root in [source, *above, *sorted(inner)[:_MOST_INNER]] if _is_root(root)), None)


def _is_root(root: Path) -> bool:
    if root.resolve().parts[-3:] == _KAGGLES:
        return False
    val, train = _split(root, "val"), _split(root, "train")
    if val is not None and any(VAL.fullmatch(name) for name in _first_names(val)):
        return True
    return train is not None and any(CLASS_TAR.fullmatch(name) for name in _first_names(train))


def _split(root: Path, split: str) -> Path | None:
    return next((root / name for name in _NAMES[split] if (root / name).is_dir()), None)


def _first_names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in islice(entries, _LOOKED)]
