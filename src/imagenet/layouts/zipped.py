"""Kaggle's `imagenet-object-localization-challenge.zip`, read in place: one look at its directory, then a unit a class folder.

Also its older form, in which the zip holds csv files and `imagenet_object_localization_patched2019.tar.gz`: that is streamed out
of it.
"""

import os
import re
from array import array
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from src.batch import DataError
from src.config import ConfigError, Problem
from src.config.prepare import PrepareConfig
from src.imagenet.labels import kaggle as labels
from src.imagenet.layouts.one_archive import STAGE, archives_at, the_archive
from src.imagenet.names import IMAGE_BYTES
from src.imagenet.pieces import Archive, Found, Piece, Unit
from src.imagenet.streams.tar_stream import gzipped_pieces
from src.imagenet.streams.tree import Seen, member_of
from src.imagenet.streams.zip_directory import Entry, entries
from src.imagenet.streams.zip_members import entry_at, member_blocks, read_member

_NAME = re.compile(r"imagenet-object-localization-challenge.*\.zip", re.ASCII)
_INNER = re.compile(r"(?:[^/]+/)?(?:imagenet_object_localization\w*|ILSVRC\d{4}_CLS-LOC)\.(?:tar\.gz|tgz)", re.ASCII)
_RUN = 5_000  # flat images a unit


def looks_like(source: Path) -> bool:
    """Tell by names alone whether this may be it, or the folder that holds it."""
    return next(archives_at(source, _NAME), None) is not None


def find(source: Path, config: PrepareConfig) -> Found:
    """Read the zip's directory, and make units of it.

    Raises:
        ConfigError: no zip is there, there are several, or it is damaged, hostile, or another's.
    """
    path = the_archive(source, _NAME, "imagenet-object-localization-challenge.zip")
    try:
        state = path.stat()
        units = _units(path)
    except DataError as error:
        raise ConfigError(STAGE, [Problem("source", None, f"{path} {error}")]) from None
    except OSError as error:
        raise ConfigError(STAGE, [Problem("source", str(path), f"cannot be read: {error.strerror}.")]) from error
    return Found(
        layout="kaggle",
        units=units,
        archives=[Archive(path, None, None)],
        stamp=[str(path.resolve()), state.st_size, state.st_mtime_ns],
        labels=labels.labels,
        words=labels.words,
        listed=labels.listed,
        notes=["the zip is read in place; the validation classes come from its LOC_val_solution.csv or Annotations"],
    )


class _Members(NamedTuple):
    """Some members of a zip, by where their entries stand in its directory: eight bytes each."""

    path: Path
    name: str
    files: int
    bytes: int
    places: "array[int]"

    def pieces(self, start: int) -> Iterator[Piece]:
        """See Unit."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for place in self.places[start:]:
                entry = entry_at(descriptor, place)
                member = member_of(entry.path, entry.size)
                assert member is not None
                yield Piece(member.place, member.folder, member.name, read_member(descriptor, entry))
        except DataError as error:
            raise DataError(f"{self.path} {error}") from None
        finally:
            os.close(descriptor)


class _Inner(NamedTuple):
    """A tar.gz in a zip."""

    path: Path
    name: str
    files: int
    bytes: int
    place: int

    def pieces(self, start: int) -> Iterator[Piece]:
        """See Unit. Inflated from its beginning, whatever `start`."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            entry = entry_at(descriptor, self.place)
            yield from gzipped_pieces(f"{self.path}/{entry.path}", member_blocks(descriptor, entry), start)
        finally:
            os.close(descriptor)


def _units(path: Path) -> list[Unit]:
    groups: dict[str, tuple[array[int], list[int]]] = {}  # folder to places of entries, and (start of the last one, bytes)
    inner: list[_Inner] = []
    seen = Seen()
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for entry in entries(descriptor):
            if entry.path.endswith("/"):
                continue
            if _INNER.fullmatch(entry.path):
                inner.append(_inner(path, entry))
                continue
            member = member_of(entry.path, entry.size)
            if member is None:
                continue
            seen.add(member)
            group = groups.setdefault(member.folder or member.place, (array("Q"), [entry.start, 0]))
            group[0].append(entry.at)
            group[1][1] += entry.size
        seen.check()
        if not any(name not in ("side", "val", "test") for name in groups) and not inner:
            raise DataError("holds no image of ILSVRC/Data/CLS-LOC/train. It is not Kaggle's zip, or only a part of it.")
        if inner and (len(inner) > 1 or any(name != "side" for name in groups)):
            raise DataError(f"holds images as well as {inner[0].name}: which of them is meant? Write it anew with one.")
    finally:
        os.close(descriptor)
    ordered = sorted(groups.items(), key=lambda item: (item[0] != "side", item[1][1][0]))
    found = (_runs(path, name, places, size) for name, (places, (_, size)) in ordered)
    return [*chain.from_iterable(found), *inner]


def _runs(path: Path, name: str, places: "array[int]", size: int) -> Iterator[Unit]:
    """Cut flat images into units; a class folder is one."""
    run = _RUN if name in ("val", "test") else len(places)
    for first in range(0, len(places), run):
        part = places[first : first + run]
        unit = f"{path.name}/{name}" if run == len(places) else f"{path.name}/{name}/{first}"
        yield _Members(path, unit, len(part), size * len(part) // len(places), part)


def _inner(path: Path, entry: Entry) -> _Inner:
    return _Inner(path, f"{path.name}/{entry.path}", entry.size // IMAGE_BYTES * 2 + 1_000, entry.size, entry.at)
