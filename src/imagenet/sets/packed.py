"""An ImageFolder in a tar or tar.gz. It is walked twice: for the names of all images, then for the images.

The first walk keeps columns, not objects: of a million images about 100 MB.
"""

import bisect
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.batch import DataError
from src.data.index_cache import Names
from src.data.tar.images import is_image
from src.imagenet.pieces import MOST_BYTES, Piece, Split
from src.imagenet.sets.archive import archive_members
from src.imagenet.sets.folders import ClassFolder, Leftovers, flat, name_fault, refuse_equal
from src.imagenet.sets.tree import Folder

_PLACES: tuple[Split, ...] = ("train", "val", "test")
_PEEKED = 100  # members that are looked at to recognise one


def looks_packed(archive: str) -> bool:
    """Tell whether it may be a packed ImageFolder: an image in a folder is among its first members. Raises nothing."""
    try:
        with archive_members(archive) as members:
            return any("/" in member.path and is_image(member.path) for _, member in zip(range(_PEEKED), members, strict=False))
    except (OSError, DataError):
        return False


class Packed:
    """The folders in an archive: a Place of the tree in it, which begins at the archive's own path.

    Args:
        archive: path of the tar.

    Raises:
        DataError: it is damaged or hostile.
        OSError: it cannot be read.
    """

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self._root = f"{archive}/"
        self._lengths = array("q")
        files: list[str] = []
        with archive_members(str(archive)) as members:
            for member in members:
                if member.path[0] != "." and "/." not in member.path:
                    files.append(member.path)
                    self._lengths.append(member.length)
        self.count = len(files)  # those that are not hidden
        order = sorted(range(len(files)), key=files.__getitem__)
        for number, after in pairwise(order):
            if files[number] == files[after]:
                raise DataError(f"{archive} holds {files[number][:300]!r} twice. Write it anew.")
        self._names = Names.pack([files[number] for number in order])
        self._ordinals = array("q", order)

    def folder(self, path: str) -> Folder:
        """See Place."""
        folders: dict[str, None] = {}
        images: list[str] = []
        others: list[str] = []
        head = f"{path}/"[len(self._root) :]
        at, end = self._range(head)
        while at < end:
            name, slash, _ = self._names[at][len(head) :].partition("/")
            if slash:
                folders[name] = None
                at = bisect.bisect_left(_Sorted(self._names), f"{head}{name}0")  # "0" is what follows the slash
            else:
                (images if is_image(name) else others).append(name)
                at += 1
        return Folder(path, sorted(folders), images, others)

    def read_class(self, path: str, name: str, leftovers: Leftovers) -> ClassFolder:
        """See Place."""
        found: list[str] = []
        total = 0
        head = f"{path}/"[len(self._root) :]
        for at in range(*self._range(head)):
            relative = self._names[at][len(head) :]
            length = self._lengths[self._ordinals[at]]
            if not is_image(relative):
                leftovers.strangers.add(f"{path}/{relative}")
            elif (fault := name_fault(flat(relative))) is not None:
                leftovers.unusable.add(f"{path}/{relative} ({fault})")
            elif not 0 < length <= MOST_BYTES:
                leftovers.unusable.add(f"{path}/{relative} ({length:,} bytes)")
            else:
                found.append(relative)
                total += length
        refuse_equal(path, found, leftovers)
        return ClassFolder(name, path, Names.pack(found), total, 0, linked=False)

    def ordinals(self, folder: ClassFolder) -> NDArray[np.int64]:
        """Return which files of the archive the images of a class are, int64 (n,)."""
        wanted = {folder.names[index]: index for index in range(len(folder.names))}
        numbers = np.empty(len(wanted), np.int64)
        head = self.head_of(folder)
        for at in range(*self._range(head)):
            index = wanted.get(self._names[at][len(head) :])
            if index is not None:
                numbers[index] = self._ordinals[at]
        return numbers

    def head_of(self, folder: ClassFolder) -> str:
        """Return what the paths of a class's images begin with."""
        return f"{folder.path}/"[len(self._root) :]

    def _range(self, head: str) -> tuple[int, int]:
        """Return where the names that begin so are."""
        if not head:
            return 0, self.count
        names = _Sorted(self._names)
        return bisect.bisect_left(names, head), bisect.bisect_left(names, f"{head[:-1]}0")


class _Sorted(Sequence[str]):
    """Packed names as a sequence, for bisection."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        return self._names[index]


class PackedUnit:
    """A whole archive.

    Args:
        packed: its names.
        classes: of every split; those under "all" are divided.
        val: of a class that is divided, bool (n,): which of its images are validation images.
    """

    def __init__(self, packed: Packed, classes: Mapping[str, Sequence[ClassFolder]], val: Mapping[str, NDArray[np.bool_]]) -> None:
        self._path = packed.archive
        self.name = packed.archive.name
        every = [folder for folders in classes.values() for folder in folders]
        self._heads = [(packed.head_of(folder), folder.name) for folder in every]
        self.files = sum(len(folder.names) for folder in every)
        self.bytes = sum(folder.bytes for folder in every)
        self._class = np.full(packed.count, -1, np.int32)  # of every file, -1 where it is left out
        self._place = np.zeros(packed.count, np.int8)
        number = 0
        for split, folders in classes.items():
            for folder in folders:
                ordinals = packed.ordinals(folder)
                self._class[ordinals] = number
                divided = val.get(folder.name) if split in ("all", "train") else None
                self._place[ordinals] = _PLACES.index(split) if split in _PLACES else 0
                if divided is not None:
                    self._place[ordinals] = divided
                number += 1

    def pieces(self, start: int) -> Iterator[Piece]:
        """See Unit."""
        number = done = 0
        with archive_members(str(self._path)) as members:
            for member in members:
                if member.path[0] == "." or "/." in member.path:
                    continue
                if number == len(self._class):
                    raise DataError("became longer while it was read. Start again.")
                label = int(self._class[number])
                place = _PLACES[self._place[number]]
                number += 1
                if label < 0:
                    continue
                done += 1
                if done <= start:
                    continue
                head, folder = self._heads[label]
                if not member.path.startswith(head):
                    raise DataError(f"changed while it was read: {member.path[:300]!r} was elsewhere. Start again.")
                yield Piece(place, folder, flat(member.path[len(head) :]), member.read())
        if number < len(self._class):
            raise DataError(f"{self._path} became shorter while it was read. Start again.")
