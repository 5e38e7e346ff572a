"""Units of folders with ImageNet's file names: a class folder, or a run of a flat folder's images. Files are linked, not read."""

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from src.config import Problem
from src.imagenet.names import CLASS_TAR, TRAIN, WNID
from src.imagenet.pieces import Archive, Piece, Split, Unit
from src.imagenet.tar_units import ClassTar

RUN = 5_000  # images of a flat folder that are one unit
_SAMPLED = 8  # files of a folder whose sizes are asked for: a million questions would take minutes on a network's disk
_THREADS = 8  # a network's disk answers many questions at once
_SHOWN = 5


class ClassFolder(NamedTuple):
    """The training images of one class.

    Attributes:
        path: of the folder.
        wnid: its name.
        files: how many images.
        bytes: of all, from a sample.
        changed: the folder's modification, ns.
    """

    path: str
    wnid: str
    files: int
    bytes: int
    changed: int

    @property
    def name(self) -> str:
        """See Unit."""
        return f"train/{self.wnid}"

    def pieces(self, start: int) -> Iterator[Piece]:
        """See Unit."""
        for name in sorted(_visible(self.path))[start:]:
            yield Piece("train", self.wnid, name, Path(f"{self.path}/{name}"))


class FlatFolder(NamedTuple):
    """A run of the images of a flat folder.

    Attributes:
        path: of the folder.
        split: of its images.
        names: of the run, sorted.
        name: see Unit.
        bytes: see Unit; from a sample.
    """

    path: str
    split: Split
    names: Sequence[str]
    name: str
    bytes: int

    @property
    def files(self) -> int:
        """See Unit."""
        return len(self.names)

    def pieces(self, start: int) -> Iterator[Piece]:
        """See Unit."""
        for name in self.names[start:]:
            yield Piece(self.split, "", name, Path(f"{self.path}/{name}"))


class Train(NamedTuple):
    """What a folder of training images holds.

    Attributes:
        units: class folders and class tars, by wnid.
        classes: their wnids, sorted.
        archives: the class tars.
        stamp: tells this state from another.
    """

    units: Sequence[Unit]
    classes: Sequence[str]
    archives: Sequence[Archive]
    stamp: object


def read_train(path: Path, problems: list[Problem]) -> Train:
    """List `<wnid>/<wnid>_<number>.JPEG` and `<wnid>.tar`; what is wrong is added to the problems."""
    names = sorted(_visible(str(path)))
    folders = [name for name in names if WNID.fullmatch(name)]
    tars = [match[1] for name in names if (match := CLASS_TAR.fullmatch(name))]
    known = {*folders, *(f"{wnid}.tar" for wnid in tars)}
    strangers = [name for name in names if name not in known]
    if strangers:
        fix = f"holds {some(strangers)}, neither class folders nor class tars such as n01440764. Move them away."
        problems.append(Problem(str(path), None, fix))
    both = sorted({*folders} & {*tars})
    if both:
        fix = (
            f"holds both a folder and a tar of {some(both)}: unpacking was broken off there. Delete the folder (the tar is whole)."
        )
        problems.append(Problem(str(path), None, fix))
    with ThreadPoolExecutor(_THREADS) as pool:
        read = list(pool.map(lambda wnid: _read_class(f"{path}/{wnid}", wnid), folders))
    for _, problem in read:
        problems += [problem] if problem is not None else []
    classes = [folder for folder, _ in read if folder is not None]
    archives = [
        ClassTar(path / f"{wnid}.tar", 0, os.stat(f"{path}/{wnid}.tar").st_size, wnid, f"train/{wnid}.tar") for wnid in tars
    ]
    stamp = [[folder.wnid, folder.files, folder.changed] for folder in classes]
    stamp += [[unit.name, unit.bytes, os.stat(f"{path}/{wnid}.tar").st_mtime_ns] for unit, wnid in zip(archives, tars, strict=True)]
    units: list[Unit] = [*classes, *archives]
    if not units and not problems:
        problems.append(Problem(str(path), None, "holds no class folder such as n01440764/."))
    files = [Archive(path / f"{wnid}.tar", None, None) for wnid in tars]
    return Train(sorted(units, key=lambda unit: unit.name), sorted({*folders, *tars}), files, stamp)


def read_flat(path: Path, split: Split, pattern: re.Pattern[str], problems: list[Problem]) -> list[FlatFolder]:
    """List a flat folder of images, in runs; what is wrong is added to the problems."""
    names = sorted(name for name in _visible(str(path)) if not name.endswith((".txt", ".csv")))  # lists of labels may lie there
    strangers = [name for name in names if not pattern.fullmatch(name)]
    if strangers:
        fix = f"holds {some(strangers)}, which are no {split} images of ILSVRC2012 by their names. Move them away."
        problems.append(Problem(str(path), None, fix))
    elif not names:
        problems.append(Problem(str(path), None, f"holds no {split} image."))
    size = _mean_bytes(str(path), names) if names and not strangers else 0
    runs = [names[first : first + RUN] for first in range(0, len(names), RUN)]
    return [FlatFolder(str(path), split, run, f"{split}/{at * RUN}", size * len(run)) for at, run in enumerate(runs)]


def some(names: Sequence[str]) -> str:
    """List the first few names for a message."""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + (f", ... ({len(names):,})" if len(names) > _SHOWN else "")


def _read_class(path: str, wnid: str) -> tuple[ClassFolder | None, Problem | None]:
    try:
        changed = os.stat(path).st_mtime_ns
        names = _visible(path)
        strangers = [name for name in names if (match := TRAIN.fullmatch(name)) is None or match[1] != wnid]
        if strangers:
            return None, Problem(
                path, None, f"holds {some(sorted(strangers))}, no images of {wnid} by their names. Move them away."
            )
        if not names:
            return None, Problem(path, None, "holds no image. Remove it, or get its images.")
        return ClassFolder(path, wnid, len(names), _mean_bytes(path, names) * len(names), changed), None
    except OSError as error:
        return None, Problem(path, None, f"cannot be read ({error.strerror}).")


def _visible(path: str) -> list[str]:
    return [name for name in os.listdir(path) if name[0] != "."]


def _mean_bytes(path: str, names: Sequence[str]) -> int:
    sample = names[:: max(1, len(names) // _SAMPLED)]
    return sum(os.stat(f"{path}/{name}").st_size for name in sample) // len(sample)
