"""What stands in a data set's folders, by names alone: one scan of every folder, in threads, and no stat."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

from src.data.index import EXTENSIONS
from src.imagenet.pieces import Split

SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Folder(NamedTuple):
    """A class folder, or, nameless, the images that lie in a split's own folder.

    Attributes:
        name: of the folder.
        packed: names of its images below it, sorted as the trainer's index sorts them, a zero byte between two: a million strings
            would be a burden.
        size: how many.
    """

    name: str
    packed: bytes
    size: int

    def names(self) -> list[str]:
        """Return the images' names."""
        return os.fsdecode(self.packed).split("\0") if self.size else []


class Listing(NamedTuple):
    """One split.

    Attributes:
        split: train, val or test.
        root: its folder.
        folders: in the order of their names; of test one nameless folder, too.
        strangers: paths below the data set's folder of what is no image, no class folder and not hidden.
        hidden: of what begins with a dot, which the trainer passes over.
    """

    split: Split
    root: str
    folders: Sequence[Folder]
    strangers: Sequence[str]
    hidden: Sequence[str]

    @property
    def size(self) -> int:
        """Return the number of images."""
        return sum(folder.size for folder in self.folders)

    @property
    def classes(self) -> list[str]:
        """Return the names of the class folders, in order."""
        return [folder.name for folder in self.folders if folder.name]

    def images(self) -> Iterator[tuple[Folder, str]]:
        """Yield each image's folder and name, in the order of the trainer's index."""
        for folder in self.folders:
            yield from zip(repeat(folder), folder.names(), strict=False)

    def path(self, folder: Folder, name: str) -> str:
        """Return one image's path below the data set's folder."""
        return "/".join(part for part in (self.split, folder.name, name) if part)


def list_split(root: Path, split: Split, *, threads: int) -> Listing | None:
    """List one split; None where it is not there.

    Raises:
        OSError: a folder cannot be read.
    """
    place = os.path.join(root, split)
    if not Path(place).is_dir():
        return None
    strangers: list[str] = []
    hidden: list[str] = []
    names: list[str] = []
    loose: list[str] = []
    with os.scandir(place) as entries:
        for entry in entries:
            path = f"{split}/{entry.name}"
            if entry.name.startswith("."):
                hidden.append(path)
            elif entry.is_dir():
                names.append(entry.name)
            elif split == "test" and _is_image(entry):
                loose.append(entry.name)
            else:
                strangers.append(path)
    with ThreadPoolExecutor(threads) as pool:
        scans = list(pool.map(lambda name: _scan(place, split, name), sorted(names)))
    folders = [folder for folder, _, _ in scans]
    if loose:
        folders.insert(0, _packed("", loose))
    for _, others, dotted in scans:
        strangers += others
        hidden += dotted
    return Listing(split, place, folders, sorted(strangers), sorted(hidden))


def _scan(place: str, split: str, name: str) -> tuple[Folder, list[str], list[str]]:
    """Scan a class folder and those below it, whose images are the class's, as the trainer's index has it."""
    found: list[str] = []
    strangers: list[str] = []
    hidden: list[str] = []
    below = [""]
    while below:
        part = below.pop()
        with os.scandir(os.path.join(place, name, part)) as entries:
            for entry in entries:
                path = part + entry.name
                if entry.name.startswith("."):
                    hidden.append(f"{split}/{name}/{path}")
                elif _is_image(entry):
                    found.append(path)
                elif entry.is_dir():
                    below.append(f"{path}/")
                else:
                    strangers.append(f"{split}/{name}/{path}")
    return _packed(name, found), strangers, hidden


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(EXTENSIONS) and entry.is_file()


def _packed(name: str, names: list[str]) -> Folder:
    names.sort()
    return Folder(name, os.fsencode("\0".join(names)), len(names))
