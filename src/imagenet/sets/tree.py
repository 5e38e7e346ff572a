"""A folder of class folders, or one of train/, val/ and test/ that hold them: which it is, and all that is wrong with it."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from src.config import ConfigError, Problem
from src.data.index import EXTENSIONS
from src.imagenet.pieces import Split
from src.imagenet.sets.folders import ClassFolder, Leftovers, Some, name_fault, read_class

STAGE = "the source"
SPLIT_WORDS: Mapping[str, Split] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_THREADS = 8  # a network's disk answers many questions at once
_SHOWN = 5


class Tree(NamedTuple):
    """What a source holds.

    Attributes:
        root: the folder that holds the classes or the splits: the source, or what it holds as its only folder.
        splits: the classes of each, sorted by name; under "all" where there are no splits. A test split without classes has one
            of the name "".
        strangers: files that are no images, left out.
    """

    root: str
    splits: Mapping[Split | str, Sequence[ClassFolder]]
    strangers: Some


class _Folder(NamedTuple):
    """The names in a folder that are not hidden."""

    path: str
    folders: list[str]
    images: list[str]
    others: list[str]

    @classmethod
    def read(cls, path: str) -> "_Folder":
        folders: list[str] = []
        images: list[str] = []
        others: list[str] = []
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name[0] != ".":
                    is_image = entry.name.lower().endswith(EXTENSIONS)
                    (folders if entry.is_dir() else images if is_image else others).append(entry.name)
        return cls(path, sorted(folders), sorted(images), sorted(others))

    def below(self, name: str) -> "_Folder":
        return _Folder.read(os.path.join(self.path, name))


def read_tree(source: str) -> Tree:
    """Read the names of all images.

    Raises:
        ConfigError: it is no such folder, or something in it cannot be told apart; every problem at once.
    """
    try:
        return _read(_descend(_Folder.read(source)))
    except OSError as error:
        raise ConfigError(STAGE, [Problem("source", error.filename or source, f"cannot be read ({error.strerror}).")]) from error


def looks_like_tree(source: str) -> bool:
    """Tell whether it may be one, by the first names only. Raises nothing."""
    try:
        top = _descend(_Folder.read(source))
        train = _split_folder(top, "train")
        inside = top if train is None else top.below(train)
        return any(_holds_images(inside.below(name)) for name in inside.folders[:_SHOWN])
    except OSError:
        return False


def classes_of_train(source: str) -> frozenset[str]:
    """Return the names of the class folders of a tree's train split; none where it has no such split.

    Raises:
        OSError: it cannot be read.
    """
    top = _descend(_Folder.read(source))
    train = _split_folder(top, "train")
    return frozenset() if train is None else frozenset(top.below(train).folders)


def _holds_images(folder: _Folder) -> bool:
    return bool(folder.images) or any(folder.below(name).images for name in folder.folders[:_SHOWN])


def _descend(folder: _Folder) -> _Folder:
    """Go into a folder that stands alone, as archives make it, where that holds classes or splits."""
    while len(folder.folders) == 1 and not folder.images and folder.folders[0].lower() not in SPLIT_WORDS:
        inner = folder.below(folder.folders[0])
        if inner.images or not inner.folders:
            break
        folder = inner
    return folder


def _split_folder(top: _Folder, split: str) -> str | None:
    return next((name for name in top.folders if SPLIT_WORDS.get(name.lower()) == split), None)


def _read(top: _Folder) -> Tree:
    problems: list[Problem] = []
    leftovers = Leftovers(Some(), Some())
    for name in top.others:
        leftovers.strangers.add(os.path.join(top.path, name))
    if top.images:
        problems.append(_loose(top))
    worded = [name for name in top.folders if name.lower() in SPLIT_WORDS]
    splits: dict[Split | str, Sequence[ClassFolder]] = {}
    if not worded:
        splits["all"] = _classes(top, top.folders, leftovers, problems)
    else:
        for name in sorted(set(top.folders) - set(worded)):
            leftovers.strangers.add(os.path.join(top.path, name) + os.sep)
        problems += _doubts(top, worded)
        for name in [] if problems else worded:
            split = SPLIT_WORDS[name.lower()]
            folder = top.below(name)
            splits[split] = (
                _flat(folder, leftovers) if split == "test" and not folder.folders else _split(folder, leftovers, problems)
            )
    if leftovers.unusable.count:
        fix = f"{leftovers.unusable.count:,} images cannot be taken: {leftovers.unusable}. Mend, rename or remove them."
        problems.append(Problem(top.path, None, fix))
    if not problems and not any(splits.values()):
        problems.append(Problem("source", top.path, "holds no images: <class>/<image>, or train/<class>/<image>, was expected."))
    if problems:
        raise ConfigError(STAGE, problems)
    return Tree(top.path, splits, leftovers.strangers)


def _doubts(top: _Folder, worded: Sequence[str]) -> list[Problem]:
    """Say what keeps the folders from being splits."""
    problems = []
    others = sorted(set(top.folders) - set(worded))
    by_split: dict[Split, list[str]] = {}
    for name in worded:
        by_split.setdefault(SPLIT_WORDS[name.lower()], []).append(name)
        if top.below(name).images and name.lower() != "test":
            fix = "holds images itself, not class folders. If it is a class, rename it; a split is <split>/<class>/<image>."
            problems.append(Problem(os.path.join(top.path, name), None, fix))
    for split, names in by_split.items():
        if len(names) > 1:
            fix = f"{' and '.join(names)} both name the split {split}. Merge them, or move one away."
            problems.append(Problem(top.path, None, fix))
    if "train" not in by_split:
        beside = f" beside {', '.join(others[:_SHOWN])}" if others else ""
        fix = f"holds {' and '.join(worded)}{beside}, but no train. If they are classes, give them other names."
        problems.append(Problem(top.path, None, fix))
    return problems


def _split(folder: _Folder, leftovers: Leftovers, problems: list[Problem]) -> Sequence[ClassFolder]:
    if folder.images:
        problems.append(_loose(folder))
    for name in folder.others:
        leftovers.strangers.add(os.path.join(folder.path, name))
    if not folder.folders:
        problems.append(Problem(folder.path, None, "holds no class folders: <split>/<class>/<image> was expected."))
    return _classes(folder, folder.folders, leftovers, problems)


def _classes(top: _Folder, names: Sequence[str], leftovers: Leftovers, problems: list[Problem]) -> Sequence[ClassFolder]:
    nameless = [name for name in names if name_fault(name) is not None]
    if nameless:
        shown = ", ".join(map(repr, nameless[:_SHOWN]))
        fix = f"class folders have names with control characters, or bytes that are no UTF-8: {shown}. Rename them."
        problems.append(Problem(top.path, None, fix))

    def read(name: str) -> tuple[ClassFolder, Leftovers]:
        mine = Leftovers(Some(), Some())
        return read_class(os.path.join(top.path, name), name, mine), mine

    classes = []
    for folder, mine in _in_threads(read, [name for name in names if name not in nameless]):
        classes.append(folder)
        for own, all_of in zip(mine, leftovers, strict=True):
            all_of.join(own)
    empty = [folder.name for folder in classes if not len(folder.names)]
    if empty and len(empty) < len(classes):
        fix = f"{len(empty)} class folders hold no image: {', '.join(empty[:_SHOWN])}{', ...' if len(empty) > _SHOWN else ''}. "
        problems.append(Problem(top.path, None, f"{fix}Remove them, or get their images."))
    return [folder for folder in classes if len(folder.names)]


def _in_threads(read: Callable[[str], tuple[ClassFolder, Leftovers]], names: Sequence[str]) -> list[tuple[ClassFolder, Leftovers]]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(read, names))


def _flat(folder: _Folder, leftovers: Leftovers) -> Sequence[ClassFolder]:
    """Take a test split without classes."""
    read = read_class(folder.path, "", leftovers)
    return [read] if len(read.names) else []


def _loose(folder: _Folder) -> Problem:
    shown = ", ".join(folder.images[:_SHOWN]) + (", ..." if len(folder.images) > _SHOWN else "")
    fix = f"{len(folder.images):,} images lie in no class folder: {shown}. Move them into one, or away."
    return Problem(folder.path, None, fix)
