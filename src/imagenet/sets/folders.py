"""Class folders of a source: which images they hold, what else lies there, and the pieces they become.

Images are told by their extension, hidden files are passed over, links are followed: as the trainer's own index of folders does.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.data.index import EXTENSIONS
from src.data.index_cache import Names
from src.imagenet.pieces import Piece, Split

_NEST = "__"  # stands for the slash in the name of an image that lies below its class folder
_LONGEST_NAME = 255  # bytes, of any file system that is met
_SAMPLED = 32  # files of a class whose sizes are looked at: a million stat calls would take minutes on a network's disk
_KEPT = 5
_UNLISTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
)  # the last: what os.fsdecode makes of bytes that are no UTF-8


class Some:
    """The first few of many names, and how many there are."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self.count = 0

    def add(self, name: str) -> None:
        """Count one."""
        self.count += 1
        if len(self.first) < _KEPT:
            self.first.append(name)

    def join(self, other: "Some") -> None:
        """Count the other's, too."""
        self.count += other.count
        self.first = (self.first + other.first)[:_KEPT]

    def __str__(self) -> str:
        """Return them as a list that ends in "..." where there are more."""
        return ", ".join(map(repr, self.first)) + (", ..." if self.count > len(self.first) else "")


class Leftovers(NamedTuple):
    """What a look at class folders found besides images.

    Attributes:
        strangers: files with no image's extension: left out.
        unusable: images that cannot be had, with the reason: links to nothing, pipes, names that no list of files can hold.
    """

    strangers: Some
    unusable: Some


class ClassFolder(NamedTuple):
    """A class, and its images.

    Attributes:
        name: of the class; "" for a test split without classes.
        path: its folder.
        names: of its images, paths below the folder, sorted.
        bytes: of all of them, from a sample where there are many.
        changed: the newest modification of its folders, ns.
        linked: some of its images are symbolic links.
    """

    name: str
    path: str
    names: Names
    bytes: int
    changed: int
    linked: bool


def read_class(path: str, name: str, leftovers: Leftovers) -> ClassFolder:
    """List the images of one class, in its folder and in folders below that.

    Raises:
        OSError: a folder cannot be read.
    """
    found: list[str] = []
    changed, linked = 0, False
    waiting: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(path),))]  # a folder, and the real ones it lies in
    while waiting:
        below, above = waiting.pop()
        folder = os.path.join(path, below)
        changed = max(changed, os.stat(folder).st_mtime_ns)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name[0] == ".":
                    continue
                relative = f"{below}{entry.name}"
                if entry.is_dir():
                    real = os.path.realpath(entry.path)
                    if any(f"{one}/".startswith(f"{real}/") for one in above):
                        leftovers.unusable.add(f"{entry.path} (a link to a folder that it lies in)")
                    else:
                        waiting.append((f"{relative}/", (*above, real)))
                elif not entry.name.lower().endswith(EXTENSIONS):
                    leftovers.strangers.add(entry.path)
                elif (fault := _fault(entry, relative)) is not None:
                    leftovers.unusable.add(f"{entry.path} ({fault})")
                else:
                    found.append(relative)
                    linked = linked or entry.is_symlink()
    found.sort()
    refuse_equal(path, found, leftovers)
    return ClassFolder(name, path, Names.pack(found), _bytes_of(path, found), changed, linked)


def flat(name: str) -> str:
    """Return the name in the target: a/b/x.jpg below its class folder becomes a__b__x.jpg."""
    return name.replace("/", _NEST)


def name_fault(name: str) -> str | None:
    """Say why a name cannot stand in lists of files, one a line, with tabs between columns; None where it can."""
    if _UNLISTABLE.search(name):
        return "its name holds control characters, or bytes that are no UTF-8"
    return "its name is too long" if len(os.fsencode(name)) > _LONGEST_NAME else None


class FolderUnit:
    """One class folder: a unit of a preparation.

    Args:
        folder: the class.
        place: the split that all its images go to, where it is one.
        val: bool (n,), which of its images are validation images of a split made now, the others being training images.
    """

    def __init__(self, folder: ClassFolder, place: Split, val: NDArray[np.bool_] | None = None) -> None:
        self._folder, self._place, self._val = folder, place, val
        self.name = f"{'split' if val is not None else place}/{folder.name}"
        self.files, self.bytes = len(folder.names), folder.bytes

    def pieces(self, start: int) -> Iterator[Piece]:
        """Yield its images, from number `start` on, as files to be linked."""
        path, names = self._folder.path, self._folder.names
        for index in range(start, len(names)):
            place = self._place if self._val is None else "val" if self._val[index] else "train"
            where = os.path.join(path, names[index])
            content = os.path.realpath(where) if self._folder.linked else where
            yield Piece(place, self._folder.name, flat(names[index]), Path(content))


def _fault(entry: "os.DirEntry[str]", relative: str) -> str | None:
    if not entry.is_file():
        return "a link to nothing" if entry.is_symlink() else "no file"
    return name_fault(flat(relative))


def refuse_equal(path: str, found: Sequence[str], leftovers: Leftovers) -> None:
    """Note images of one class that would have the same name, or are there twice."""
    seen: dict[str, str] = {}
    if any("/" in name for name in found):
        for name in found:
            other = seen.setdefault(flat(name), name)
            if other != name:
                leftovers.unusable.add(f"{path}/{name} (would have the name of {path}/{other}, {flat(name)})")


def _bytes_of(path: str, names: Sequence[str]) -> int:
    sample = names[:: max(1, len(names) // _SAMPLED)]
    return sum(os.stat(os.path.join(path, name)).st_size for name in sample) * len(names) // max(1, len(sample))
