"""The tree of Kaggle's competition and of Academic Torrents' ILSVRC2017_CLS-LOC, unpacked.

<root>/ILSVRC/Data/CLS-LOC/{train/<wnid>,val,test}/*.JPEG
<root>/ILSVRC/Annotations/CLS-LOC/val/*.xml                     tell the validation classes, where there is no
<root>/LOC_val_solution.csv, <root>/LOC_synset_mapping.txt      Kaggle's
"""

import os
from collections.abc import Sequence
from pathlib import Path

from src.batch import DataError
from src.config import ConfigError, Problem
from src.config.prepare import PrepareConfig
from src.imagenet.folder_units import FlatFolder, Train, read_flat, read_train
from src.imagenet.labels import kaggle as labels
from src.imagenet.labels.kaggle import ANNOTATIONS, LISTS
from src.imagenet.labels.tables import MAPPING, SOLUTION
from src.imagenet.names import TEST, VAL
from src.imagenet.pieces import Found

STAGE = "the source"
_DATA = Path("ILSVRC/Data/CLS-LOC")
_UPWARDS = 3  # from CLS-LOC, Data or ILSVRC to what holds ILSVRC


def looks_like(source: Path) -> bool:
    """Tell whether it is the tree, or a folder in its upper part, or one that holds it."""
    try:
        return _root(source) is not None
    except OSError:
        return False


def find(source: Path, config: PrepareConfig) -> Found:
    """List the folders, and read Kaggle's tables where they are there.

    Raises:
        ConfigError: something is missing or is not what its name says; every problem at once.
    """
    root = _root(source)
    if root is None:
        fix = f"holds no {_DATA}/train. Name the folder that ILSVRC/ lies in, or the zip itself."
        raise ConfigError(STAGE, [Problem("source", str(source), fix)])
    problems: list[Problem] = []
    try:
        train, flat = _images(root, problems)
        told = _told(root, source, problems)
    except OSError as error:
        problems.append(Problem("source", error.filename or str(root), f"cannot be read ({error.strerror})."))
    if problems:
        raise ConfigError(STAGE, problems)
    return Found(
        layout="kaggle",
        units=[*train.units, *flat],
        archives=train.archives,
        stamp=[str(root.resolve()), train.stamp, [[run.name, len(run.names)] for run in flat], _states(root)],
        labels=lambda side: labels.labels(root),
        words=lambda side: labels.words(root),
        listed=lambda side: labels.listed(root),
        notes=[f"the validation classes come from {told}", *_lists(root)],
    )


def _images(root: Path, problems: list[Problem]) -> tuple[Train, Sequence[FlatFolder]]:
    data = root / _DATA
    flat: list[FlatFolder] = []
    for split, pattern in (("val", VAL), ("test", TEST)):
        folder = data / split
        if folder.is_dir():
            flat += read_flat(folder, "val" if split == "val" else "test", pattern, problems)
        elif split == "val":
            problems.append(Problem("source", str(folder), "is not there: the 50,000 validation images. Unpack the archive again."))
    return read_train(data / "train", problems), flat


def _told(root: Path, source: Path, problems: list[Problem]) -> str:
    """Say what tells the validation classes; read it where that is quick."""
    if (root / SOLUTION).is_file():
        try:
            labels.labels(root)
        except DataError as error:
            problems.append(Problem("source", str(root / SOLUTION), str(error).removeprefix(f"{root / SOLUTION} ")))
        return f"{SOLUTION}, checked against {MAPPING}" if (root / MAPPING).is_file() else SOLUTION
    folder = root / ANNOTATIONS
    if not folder.is_dir() or not any(name.endswith(".xml") for name in os.listdir(folder)):
        fix = f"nothing tells the classes of the validation images. Put {SOLUTION} there (from Kaggle's zip), or {ANNOTATIONS}/."
        problems.append(Problem("source", str(root), fix))
    return f"{ANNOTATIONS}/*.xml"


def _lists(root: Path) -> list[str]:
    return [f"all images are compared with {LISTS}/*.txt"] if (root / LISTS / "train_cls.txt").is_file() else []


def _states(root: Path) -> list[object]:
    """Tell this state of the labels from another."""
    paths = [root / SOLUTION, root / MAPPING, root / ANNOTATIONS, root / LISTS]
    states = [(path, os.stat(path)) for path in paths if path.exists()]
    return [[str(path), state.st_mtime_ns, state.st_size if path.is_file() else 0] for path, state in states]


def _root(source: Path) -> Path | None:
    """Return the folder that ILSVRC lies in: the source, one above it, or one in it."""
    if not source.is_dir():
        return None
    resolved = source.resolve()
    above = list(resolved.parents)[:_UPWARDS] if resolved.name in _DATA.parts else []
    with os.scandir(source) as entries:
        inner = [Path(entry.path) for _, entry in zip(range(20), entries, strict=False) if entry.name[0] != "." and entry.is_dir()]
    return next((root for root in [source, *above, *sorted(inner)] if (root / _DATA / "train").is_dir()), None)
