"""The archives as image-net.org publishes them: train (a tar of class tars), val and test (flat), the devkit with val's classes."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from src.batch import DataError
from src.config import ConfigError, Problem
from src.config.prepare import PrepareConfig
from src.imagenet.labels.devkit import devkit_labels, devkit_stamp, devkit_train_counts, find_devkit
from src.imagenet.names import TEST, VAL
from src.imagenet.pieces import Archive, Found, Labels, Unit
from src.imagenet.published import DEVKIT_TAR, PUBLISHED, TEST_TARS, TRAIN_TAR, VAL_TAR, WHERE
from src.imagenet.tar_units import class_tars, flat_runs

STAGE = "the source"
_MOST_INNER = 50  # names in a folder that are looked at for a folder that holds the tars


class _Parts(NamedTuple):
    """What is there; None for what is not."""

    train: Path | None
    val: Path | None
    test: Path | None
    devkit: Path | None


def looks_like(source: Path) -> bool:
    """Tell whether it holds, or is, one of the official archives of images."""
    try:
        parts = _parts(_folder(source))
    except OSError:
        return False
    return any(parts[:3]) and (source.is_dir() or source in parts)


def find(source: Path, config: PrepareConfig) -> Found:
    """Read the headers of the tars, and the devkit.

    Raises:
        ConfigError: a part is missing, damaged, or holds what it should not; every problem at once.
    """
    folder = _folder(source)
    parts = _parts(folder)
    problems = _missing(folder, parts, config)
    units: list[Unit] = []
    for path, read in ((parts.train, class_tars), (parts.val, _val), (parts.test, _test)):
        if path is not None:
            units += _read(path, read, problems)
    labels = _labels(parts.devkit, problems) if parts.val is not None and parts.devkit is not None else {}
    if problems:
        raise ConfigError(STAGE, problems)
    paths = [path for path in parts[:3] if path is not None]
    return Found(
        layout="official",
        units=units,
        archives=[archive_of(path) for path in [*paths, *([parts.devkit] if parts.devkit and parts.devkit.is_file() else [])]],
        stamp=[*map(stamp_of, paths), devkit_stamp(parts.devkit) if parts.devkit is not None else None],
        labels=lambda side: labels,
        words=lambda side: {},
        listed=lambda side: None,
        notes=_notes(folder, parts),
        train_counts=partial(devkit_train_counts, parts.devkit) if parts.devkit is not None else None,
    )


def archive_of(path: Path) -> Archive:
    """Return an archive with what is published about it, by its name."""
    known = PUBLISHED.get(path.name)
    return Archive(path, known.md5 if known else None, known.bytes if known else None)


def stamp_of(path: Path) -> object:
    """Return what tells this archive from another: path, size, mtime."""
    state = os.stat(path)
    return [str(path.resolve()), state.st_size, state.st_mtime_ns]


def alone_is_wanted(config: PrepareConfig, other: str) -> bool:
    """Tell whether one split without the other was asked for: by a layout that was typed, for a target that has the other one."""
    return config.layout != "auto" and config.target is not None and (Path(config.target).expanduser() / other).is_dir()


def _folder(source: Path) -> Path:
    """Return the folder that holds the tars: the source, the one that it lies in, or the only one in it that does."""
    if not source.is_dir():
        return source.parent
    if any(_parts(source)[:3]):
        return source
    with os.scandir(source) as entries:
        inner = [Path(entry.path) for entry in islice(entries, _MOST_INNER) if entry.name[0] != "." and entry.is_dir()]
    holding = [folder for folder in inner if os.access(folder, os.R_OK | os.X_OK) and any(_parts(folder)[:3])]
    return holding[0] if len(holding) == 1 else source


def _parts(folder: Path) -> _Parts:
    names = {name.name for name in os.scandir(folder)}
    test = next((name for name in TEST_TARS if name in names), None)
    return _Parts(
        folder / TRAIN_TAR if TRAIN_TAR in names else None,
        folder / VAL_TAR if VAL_TAR in names else None,
        folder / test if test is not None else None,
        find_devkit(folder),
    )


def _missing(folder: Path, parts: _Parts, config: PrepareConfig) -> list[Problem]:
    """Name what is not there, all at once, with what is there instead."""
    missing = []
    if parts.train is None and not (parts.val is not None and alone_is_wanted(config, "train")):
        missing.append(TRAIN_TAR)
    if parts.val is None and not (parts.train is not None and alone_is_wanted(config, "val")):
        missing.append(VAL_TAR)
    if parts.devkit is None and (parts.val is not None or VAL_TAR in missing):
        missing.append(DEVKIT_TAR)
    if not missing:
        return []
    fix = f"{' and '.join(missing)} must lie there, too. Get it from {WHERE}."
    return [Problem("source", str(folder), fix + _half_way(folder, missing))]


def _half_way(folder: Path, missing: Sequence[str]) -> str:
    """Say what to do where some archives were unpacked already, and then deleted."""
    unpacked = [split for split, tar in (("train", TRAIN_TAR), ("val", VAL_TAR)) if tar in missing and (folder / split).is_dir()]
    if not unpacked:
        return ""
    packed = [split for split in ("train", "val") if split not in unpacked]
    shown = " and ".join(f"{split}/" for split in unpacked)
    steps = " && ".join(f"mkdir -p {split} && tar -xf ILSVRC2012_img_{split}.tar -C {split}" for split in packed)
    more = f"unpack the other (cd {folder} && {steps}) and " if packed else ""
    return f" {shown} is there, as if it was unpacked: if it is whole, {more}type layout=folders."


def _val(path: Path) -> Sequence[Unit]:
    return flat_runs(path, "val", VAL)


def _test(path: Path) -> Sequence[Unit]:
    return flat_runs(path, "test", TEST)


def _read(path: Path, read: Callable[[Path], Sequence[Unit]], problems: list[Problem]) -> Sequence[Unit]:
    try:
        return read(path)
    except DataError as error:
        problems.append(Problem("source", str(path), str(error).removeprefix(f"{path} ")))
    except OSError as error:
        problems.append(Problem("source", str(path), f"cannot be read ({error.strerror})."))
    return []


def _labels(devkit: Path, problems: list[Problem]) -> Labels:
    try:
        return devkit_labels(devkit)
    except DataError as error:
        problems.append(Problem("source", str(devkit), str(error).removeprefix(f"{devkit} ")))
    return {}


def _notes(folder: Path, parts: _Parts) -> list[str]:
    notes = []
    if parts.val is not None and parts.devkit is not None:
        notes.append(f"the validation classes come from {parts.devkit.name}, translated from its own numbers")
    if parts.test is not None:
        notes.append(f"{parts.test.name} has no classes: test/ is kept apart")
    passed = sorted(
        path.name for path in folder.iterdir() if path.name.startswith("ILSVRC2012_") and path not in parts and path.is_file()
    )
    if passed:
        notes.append(f"not used: {', '.join(passed)}")
    return notes
