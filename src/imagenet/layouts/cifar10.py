"""CIFAR-10: cifar-10-binary.tar.gz or cifar-10-python.tar.gz, or the folder that one unpacks to. The test images become val."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from src.batch import DataError
from src.config import ConfigError, Problem
from src.config.prepare import PrepareConfig
from src.imagenet.pieces import Archive, Found, Piece, Unit
from src.imagenet.sets.archive import archive_members
from src.imagenet.sets.cifar import PER_BATCH, ROW_BYTES, WORDS, Batch, batch_of, batches, pieces_of, read_batch

STAGE = "the source"
_PNG_BYTES = 2_500  # of one image, on average and about
_ARCHIVE = re.compile(r"cifar-10-(binary|python)\b.*\.(tar\.gz|tgz|tar)")
_FOLDERS = {"cifar-10-batches-bin": True, "cifar-10-batches-py": False}
# md5 sums of the publication, https://www.cs.toronto.edu/~kriz/cifar.html; sizes as its server tells them.
PUBLISHED = {
    "binary": ("c32a1d4ab5d03f1284b67883e8d87530", 170_052_171),
    "python": ("c58f30108f718f92721af3b95e74349a", 170_498_071),
}
# Of the pickled batches, from torchvision.datasets.CIFAR10.
_BATCH_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}


def looks_like(source: Path) -> bool:
    """Tell whether it is one of the archives, or a folder with one, or with the batches."""
    try:
        return _archive_at(source) is not None or _folder_at(source) is not None
    except OSError:
        return False


def find(source: Path, config: PrepareConfig) -> Found:
    """Find the archive, or the batches; the binary form first, which needs no pickles.

    Raises:
        ConfigError: neither is there, or batches are missing or have the wrong size; every problem at once.
    """
    if config.val_fraction is not None:
        raise ConfigError(STAGE, [Problem("val_fraction", config.val_fraction, "CIFAR-10 has its validation split. Leave it out.")])
    folder = _folder_at(source)
    archive = source if source.is_file() else _archive_at(source)
    if folder is not None and (folder.binary or archive is None):
        return _found(_batch_units(folder, config), _batch_archives(folder), [f"batches of {folder.path}"])
    if archive is None:
        fix = "holds neither cifar-10-binary.tar.gz nor cifar-10-python.tar.gz, nor the six batches that one of them unpacks to."
        raise ConfigError(STAGE, [Problem("source", str(source), fix)])
    match = _ARCHIVE.fullmatch(archive.name)
    md5, size = PUBLISHED[match[1]] if match is not None and match[2] != "tar" else (None, None)
    notes = [] if md5 is not None else [f"{archive} has no published sum by its name: it is taken as it is"]
    return _found([_ArchiveUnit(archive)], [Archive(archive, md5, size)], notes)


def _found(units: Sequence[Unit], archives: Sequence[Archive], notes: Sequence[str]) -> Found:
    states = [(archive.path, archive.path.stat()) for archive in archives]
    return Found(
        layout="cifar10",
        units=units,
        archives=archives,
        stamp=[[os.path.realpath(path), state.st_size, state.st_mtime_ns] for path, state in states],
        labels=lambda side: {},
        words=lambda side: WORDS,
        listed=lambda side: None,
        notes=[*notes, "the test images become val; files are named by place"],
    )


class _ArchiveUnit:
    """A whole archive: it is inflated once, whatever the order of the batches in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.name
        self.files = PER_BATCH * len(batches(binary=True))
        self.bytes = self.files * _PNG_BYTES

    def pieces(self, start: int) -> Iterator[Piece]:
        """See Unit."""
        met: set[int] = set()
        with archive_members(str(self._path)) as members:
            for member in members:
                batch = batch_of(member.path)
                if batch is None:
                    continue
                if batch.number in met:
                    raise DataError(f"holds {batch.file} twice ({member.path}). {_AGAIN}")
                met.add(batch.number)
                try:
                    images = read_batch(batch, member.read())
                except ValueError as error:
                    raise DataError(f"holds {member.path}, which {error}. {_AGAIN}") from None
                yield from pieces_of(batch, images, start)
                start = max(0, start - len(images.labels))
            lacking = [batch.file for batch in batches(binary=False) if batch.number not in met]
            if lacking:
                raise DataError(f"lacks {', '.join(lacking)}. {_AGAIN}")


class _Folder(NamedTuple):
    """Where batches lie, and in which form."""

    path: Path
    binary: bool


class _BatchUnit(NamedTuple):
    """One batch in a folder."""

    batch: Batch
    path: Path
    name: str
    files: int
    bytes: int

    def pieces(self, start: int) -> Iterator[Piece]:
        """See Unit."""
        try:
            with self.path.open("rb") as file:
                images = read_batch(self.batch, file.read(2 * PER_BATCH * ROW_BYTES))
        except ValueError as error:
            raise DataError(f"{self.path} {error}. {_AGAIN}") from None
        yield from pieces_of(self.batch, images, start)


def _batch_units(folder: _Folder, config: PrepareConfig) -> list[_BatchUnit]:
    problems, units = [], []
    for batch in batches(binary=folder.binary):
        path = folder.path / batch.file
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            problems.append(Problem(str(path), None, "is missing. Unpack the archive again."))
        elif folder.binary and size != PER_BATCH * ROW_BYTES and config.checksum != "off":
            problems.append(Problem(str(path), None, f"has {size:,} bytes, not {PER_BATCH * ROW_BYTES:,}. {_AGAIN}"))
        units.append(_BatchUnit(batch, path, batch.file, PER_BATCH, PER_BATCH * _PNG_BYTES))
    if problems:
        raise ConfigError(STAGE, problems)
    return units


def _batch_archives(folder: _Folder) -> list[Archive]:
    files = [batch.file for batch in batches(binary=folder.binary)]
    return [Archive(folder.path / file, _BATCH_MD5.get(file), PER_BATCH * ROW_BYTES if folder.binary else None) for file in files]


def _archive_at(path: Path) -> Path | None:
    """Return the archive that a path is, or that lies in it; the binary one of two."""
    if path.is_file():
        return path if _ARCHIVE.fullmatch(path.name) else None
    names = [inner for inner in path.iterdir() if _ARCHIVE.fullmatch(inner.name) and inner.is_file()]
    return min(names, default=None)


def _folder_at(path: Path) -> _Folder | None:
    """Return the folder with batches, the path itself or one in it."""
    candidates = [_Folder(path, True), _Folder(path, False)]
    candidates += [_Folder(path / name, binary) for name, binary in _FOLDERS.items()]
    for folder in candidates:
        if any((folder.path / batch.file).is_file() for batch in batches(binary=folder.binary)):
            return folder
    return None


_AGAIN = "Get it again, or try cifar-10-binary.tar.gz."
