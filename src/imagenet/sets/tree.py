"""A folder of class folders, or one of train/, val/ and test/ that hold them: which it is, and all that is wrong with it.

It may lie on a disk or in an archive; what a folder holds is asked of a Place.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

from src.config import ConfigError, Problem
from src.data.index import EXTENSIONS
from src.data.tar.images import some
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


class Folder(NamedTuple):
    """The names in a folder that are not hidden, sorted."""

    path: str
    folders: Sequence[str]
    images: Sequence[str]
    others: Sequence[str]


class Place(Protocol):
    """Where folders lie."""

    def folder(self, path: str) -> Folder:
        """List a folder.

        Raises:
            OSError: it cannot be read.
        """

    def read_class(self, path: str, name: str, leftovers: Leftovers) -> ClassFolder:
        """List a class's images, in its folder and below.

        Raises:
            OSError: it cannot be read.
        """


class _Disk:
    def folder(self, path: str) -> Folder:
        folders: list[str] = []
        images: list[str] = []
        others: list[str] = []
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name[0] != ".":
                    is_image = entry.name.lower().endswith(EXTENSIONS)
                    (folders if entry.is_dir() else images if is_image else others).append(entry.name)
        return Folder(path, sorted(folders), sorted(images), sorted(others))

    def read_class(self, path: str, name: str, leftovers: Leftovers) -> ClassFolder:
        return read_class(path, name, leftovers)


DISK: Place = _Disk()


def read_tree(source: str, place: Place = DISK) -> Tree:
    """Read the names of all images.

    Args:
        source: the outermost folder.
        place: where it lies.

    Raises:
        ConfigError: it is no such folder, or something in it cannot be told apart; every problem at once.
    """
    try:
        return _Reader(place).read(_descend(place, place.folder(source)))
    except OSError as error:
        raise ConfigError(STAGE, [Problem("source", error.filename or source, f"cannot be read ({error.strerror}).")]) from error


def looks_like_tree(source: str) -> bool:
    """Tell whether it may be one, by the first names only. Raises nothing."""
    try:
        top = _descend(DISK, DISK.folder(source))
        train = _split_folder(top, "train")
        inside = top if train is None else _below(DISK, top, train)
        return any(_holds_images(_below(DISK, inside, name)) for name in inside.folders[:_SHOWN])
    except OSError:
        return False


def classes_of_train(source: str) -> frozenset[str]:
    """Return the names of the class folders of a tree's train split; none where it has no such split.

    Raises:
        OSError: it cannot be read.
    """
    top = _descend(DISK, DISK.folder(source))
    train = _split_folder(top, "train")
    return frozenset() if train is None else frozenset(_below(DISK, top, train).folders)


def _below(place: Place, folder: Folder, name: str) -> Folder:
    return place.folder(os.path.join(folder.path, name))


def _holds_images(folder: Folder) -> bool:
    return bool(folder.images) or any(_below(DISK, folder, name).images for name in folder.folders[:_SHOWN])


def _descend(place: Place, folder: Folder) -> Folder:
    """Go into a folder that stands alone, as archives make it, where that holds classes or splits."""
    while len(folder.folders) == 1 and not folder.images and folder.folders[0].lower() not in SPLIT_WORDS:
        inner = _below(place, folder, folder.folders[0])
        if inner.images or not inner.folders:
            break
        folder = inner
    return folder


def _split_folder(top: Folder, split: str) -> str | None:
    return next((name for name in top.folders if SPLIT_WORDS.get(name.lower()) == split), None)


class _Reader:
    """Reads a tree, and gathers what is wrong with it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._problems: list[Problem] = []
        self._leftovers = Leftovers(Some(), Some())

    def read(self, top: Folder) -> Tree:
        splits = self._splits(top)
        if self._leftovers.unusable.count:
            unusable = self._leftovers.unusable
            self._refuse(top.path, f"{unusable.count:,} images cannot be taken: {unusable}. Mend, rename or remove them.")
        if not self._problems and not any(splits.values()):
            fix = "holds no images: <class>/<image>, or train/<class>/<image>, was expected."
            self._problems.append(Problem("source", top.path, fix))
        if self._problems:
            raise ConfigError(STAGE, self._problems)
        return Tree(top.path, splits, self._leftovers.strangers)

    def _splits(self, top: Folder) -> dict[Split | str, Sequence[ClassFolder]]:
        worded = [name for name in top.folders if name.lower() in SPLIT_WORDS]
        self._leave_out(top, top.others)
        self._refuse_loose(top)
        if not worded:
            return {"all": self._classes(top)}
        self._leave_out(top, [name + os.sep for name in top.folders if name not in worded])
        self._doubt(top, worded)
        splits: dict[Split | str, Sequence[ClassFolder]] = {}
        for name in [] if self._problems else worded:
            split, folder = SPLIT_WORDS[name.lower()], _below(self._place, top, name)
            if split == "test" and not folder.folders:
                flat = self._place.read_class(folder.path, "", self._leftovers)
                splits[split] = [flat] if len(flat.names) else []
                continue
            self._leave_out(folder, folder.others)
            self._refuse_loose(folder)
            if not folder.folders:
                self._refuse(folder.path, "holds no class folders: <split>/<class>/<image> was expected.")
            splits[split] = self._classes(folder)
        return splits

    def _doubt(self, top: Folder, worded: Sequence[str]) -> None:
        """Say what keeps the folders from being splits."""
        by_split: dict[Split, list[str]] = {}
        for name in worded:
            by_split.setdefault(SPLIT_WORDS[name.lower()], []).append(name)
            folder = _below(self._place, top, name)
            if folder.images and name.lower() != "test":
                fix = "holds images itself, not class folders. If it is a class, rename it; a split is <split>/<class>/<image>."
                self._refuse(folder.path, fix)
        for split, names in by_split.items():
            if len(names) > 1:
                self._refuse(top.path, f"{' and '.join(names)} both name the split {split}. Merge them, or move one away.")
        if "train" not in by_split:
            others = [name for name in top.folders if name not in worded]
            beside = f" beside {some(others)}" if others else ""
            fix = f"holds {' and '.join(worded)}{beside}, but no train. If they are classes, give them other names."
            self._refuse(top.path, fix)

    def _classes(self, top: Folder) -> Sequence[ClassFolder]:
        nameless = [name for name in top.folders if name_fault(name) is not None]
        if nameless:
            shown = some(map(repr, nameless))
            self._refuse(
                top.path, f"class folders have names with control characters, or bytes that are no UTF-8: {shown}. Rename them."
            )

        def read(name: str) -> tuple[ClassFolder, Leftovers]:
            mine = Leftovers(Some(), Some())
            return self._place.read_class(os.path.join(top.path, name), name, mine), mine

        classes = []
        with ThreadPoolExecutor(_THREADS) as pool:
            for folder, mine in pool.map(read, [name for name in top.folders if name not in nameless]):
                classes.append(folder)
                for own, all_of in zip(mine, self._leftovers, strict=True):
                    all_of.join(own)
        empty = [folder.name for folder in classes if not len(folder.names)]
        if empty and len(empty) < len(classes):
            self._refuse(top.path, f"{len(empty)} class folders hold no image: {some(empty)}. Remove them, or get their images.")
        return [folder for folder in classes if len(folder.names)]

    def _refuse_loose(self, folder: Folder) -> None:
        if folder.images:
            fix = f"{len(folder.images):,} images lie in no class folder: {some(folder.images)}. Move them into one, or away."
            self._refuse(folder.path, fix)

    def _leave_out(self, folder: Folder, names: Sequence[str]) -> None:
        for name in names:
            self._leftovers.strangers.add(os.path.join(folder.path, name))

    def _refuse(self, path: str, fix: str) -> None:
        self._problems.append(Problem(path, None, fix))
