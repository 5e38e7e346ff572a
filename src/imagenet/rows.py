"""What each unit has written, a row for every file, in `<target>/.prepare/rows/`: lines as the manifest's, in the unit's order.

Paths are those below the tree: "train/n01440764/n01440764_10026.JPEG", "val/ILSVRC2012_val_00000293.JPEG" before its class is
known, "side/<name>". The journal tells how much of each file counts; what is behind was written by an attempt that was killed.
"""

import os
import shutil
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from src.data.index_cache import digest
from src.imagenet.journal import Journal
from src.imagenet.manifest import FOLDER
from src.imagenet.space import StoppedError
from src.imagenet.writing import make_folder


class Rows:
    """The rows of all units.

    Args:
        target: of the preparation.
        journal: which tells how much of them counts.
    """

    def __init__(self, target: Path, journal: Journal) -> None:
        self._folder, self._journal = target / FOLDER / "rows", journal

    def cut_back(self) -> None:
        """Make the folder, and forget what the journal does not tell of.

        Raises:
            StoppedError: what it tells of is not there.
            OSError: it cannot be written.
        """
        make_folder(os.fspath(self._folder))
        known = {}
        for name, unit in self._journal.state.units.items():
            known[self._path(name).name] = unit.rows
        for path in self._folder.iterdir():
            if path.name not in known or path.is_symlink():
                path.unlink()
        for name, length in known.items():
            path = self._folder / name
            if length and (not path.exists() or path.stat().st_size < length):
                raise StoppedError(f"{path} is not as this preparation left it. Begin anew with restart=true.")
            if length:
                os.truncate(path, length)
            else:
                path.unlink(missing_ok=True)

    def append(self, unit: str, rows: Sequence[bytes]) -> None:
        """Append rows of one unit.

        Raises:
            OSError: they cannot be written.
        """
        with open(self._path(unit), "ab") as file:
            file.writelines(rows)

    def length(self, unit: str) -> int:
        """Return how many bytes count."""
        told = self._journal.state.units.get(unit)
        return told.rows if told is not None else 0

    def of_unit(self, unit: str) -> list[bytes]:
        """Return the rows of one unit that count."""
        length = self.length(unit)
        if not length:
            return []
        with open(self._path(unit), "rb") as file:
            return file.read(length).splitlines(keepends=True)

    def sorted(self) -> list[bytes]:
        """Return the rows that count, of all units, sorted by path."""
        return sorted(row for unit in self._journal.state.units for row in self.of_unit(unit))

    def writer_of(self, path: bytes) -> str | None:
        """Tell which unit wrote a path, or one that this file system takes for the same."""
        wanted = _folded(path)
        for unit in self._journal.state.units:
            if any(_folded(row.split(b"\t", 1)[0]) == wanted for row in self.of_unit(unit)):
                return unit
        return None

    def _path(self, unit: str) -> Path:
        return self._folder / f"{digest(unit)}.tsv"


def remove_unknown(target: Path, rows: Iterable[bytes]) -> int:
    """Delete what stands below the tree and in no row: an attempt that was killed wrote it. Returns how many files.

    Args:
        target: of the preparation.
        rows: sorted by path.

    Raises:
        StoppedError: a file is missing that a row tells of.
        OSError: something cannot be deleted.
    """
    root = os.fspath(target / FOLDER)
    known: dict[str, set[str]] = {}
    for folder, group in by_folder(rows):
        known[folder] = {path.rpartition("/")[2] for path in group}
    removed = 0
    for top in ("tree", "side"):
        removed += _remove_below(f"{root}/{top}", "" if top == "tree" else "side", known)
    missing = next((f"{folder}/{min(names)}" for folder, names in known.items() if names), None)
    if missing is not None:
        raise StoppedError(f"{target / FOLDER}: {missing} was written and is not there any more. Begin anew with restart=true.")
    return removed


def by_folder(rows: Iterable[bytes]) -> Iterator[tuple[str, list[str]]]:
    """Group the paths of sorted rows by their folder."""
    paths = (os.fsdecode(row.split(b"\t", 1)[0]) for row in rows)
    for folder, group in groupby(paths, lambda path: path.rpartition("/")[0]):
        yield folder, list(group)


def _remove_below(path: str, relative: str, known: dict[str, set[str]]) -> int:
    kind = _kind(path)
    if kind is None:
        return 0
    if not stat.S_ISDIR(kind):
        os.unlink(path)
        return 1
    removed = 0
    names = known.get(relative, set())
    with os.scandir(path) as entries:
        for entry in list(entries):
            below = f"{relative}/{entry.name}" if relative else entry.name
            if entry.is_dir(follow_symlinks=False):
                removed += _remove_below(entry.path, below, known)
            elif entry.name in names and not entry.is_symlink():
                names.discard(entry.name)
            else:
                os.unlink(entry.path)
                removed += 1
    return removed


def _kind(path: str) -> int | None:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return None


def remove_tree(folder: Path) -> None:
    """Delete a folder of ours, or a link that somebody put in its place.

    Raises:
        OSError: it cannot be deleted.
    """
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _folded(path: bytes) -> str:
    return unicodedata.normalize("NFC", os.fsdecode(path)).casefold()
