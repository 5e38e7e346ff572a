"""Parquet shards as `ILSVRC/imagenet-1k` has them: one unit a shard; the class stands in the image's name and in its label.

Names as the data set's own script made them: `n01440764_10026_n01440764.JPEG`, `ILSVRC2012_val_00000293_n01440764.JPEG` and
`ILSVRC2012_test_00000001.JPEG` (huggingface/datasets, datasets/imagenet-1k/imagenet-1k.py); labels count the sorted wnids,
-1 in the test split. The suffix is not part of the official name and goes.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from src.batch import DataError
from src.config import ConfigError, Problem
from src.config.prepare import PrepareConfig
from src.imagenet.pieces import MOST_BYTES, Archive, Found, Piece, Split
from src.imagenet.streams.shard_names import Shard, lacking, list_shards, shard_of
from src.imagenet.streams.shards import Footer, Row, read_footer, read_rows
from src.imagenet.wnids import imagenet_wnids, imagenet_words

_STAGE = "the source"
_TRAIN = re.compile(r"((n\d{8})_\d{1,9})(?:_(n\d{8}))?\.JPEG", re.ASCII)
_FLAT = re.compile(r"(ILSVRC2012_(val|test)_\d{8})(?:_(n\d{8}))?\.JPEG", re.ASCII)
_MOST_UNKNOWN = 20  # of 1,000 names may be spelt in a way of their own, if the others are ImageNet's at their places
_FULL_SIZE = 1_000


def looks_like(source: Path) -> bool:
    """Tell by names alone whether shards lie there; a glob of them, and a single shard, will do."""
    try:
        return bool(_shards(source))
    except OSError:
        return False


def find(source: Path, config: PrepareConfig) -> Found:
    """Look at the shards' names and footers.

    Raises:
        ConfigError: shards are missing, or cannot be read, or are not ImageNet's; every problem at once.
    """
    try:
        shards = _shards(source)
    except OSError as error:
        raise ConfigError(_STAGE, [Problem("source", str(source), f"cannot be read: {error.strerror}.")]) from error
    if not shards:
        fix = "holds no shards such as train-00000-of-00294.parquet, nor does its folder data/."
        raise ConfigError(_STAGE, [Problem("source", str(source), fix)])
    problems = [Problem("source", str(source), what) for what in lacking(shards)]
    footers: list[Footer] = []
    for shard in shards:
        try:
            footers.append(read_footer(shard.path))
        except DataError as error:
            problems.append(Problem("source", str(source), str(error)))
            if "pip install" in str(error):
                break
    classes = footers[0].classes if footers else None
    other = next((shard.path for shard, footer in zip(shards, footers, strict=False) if footer.classes != classes), None)
    if other is not None and not problems:
        fix = f"{other} numbers other classes than {shards[0].path}. Keep the shards of one data set."
        problems.append(Problem("source", str(source), fix))
    if problems:
        raise ConfigError(_STAGE, problems)
    ranked = classes is not None and are_imagenets(classes)
    return Found(
        layout="huggingface",
        units=list(_units(shards, footers, ranked)),
        archives=[Archive(shard.path, None, None) for shard in shards],
        stamp=[_state(shard.path) for shard in shards],
        labels=lambda _: {},
        words=lambda _: {},
        listed=lambda _: None,
        notes=[
            f"{len(shards):,} shards; classes come from the images' names"
            + (", which must agree with the labels, by position among ImageNet's 1,000" if ranked else ""),
            "images without a name are called <split>_<running number>.JPEG",
        ],
    )


def are_imagenets(names: Sequence[str]) -> bool:
    """Tell whether these are the names of ImageNet's classes, each at its place.

    By position, for names repeat (two cranes, which some call crane and crane2). Every name must share a synonym with ImageNet's
    at its place; a few may be spelt unlike any, none may be another class's.
    """
    wnids = imagenet_wnids()
    if len(names) != _FULL_SIZE or len(wnids) != _FULL_SIZE:
        return False
    known = [_synonyms(imagenet_words()[wnid]) for wnid in wnids]
    anyones = frozenset().union(*known)
    strange = 0
    for name, own in zip(names, known, strict=True):
        synonyms = _synonyms(name)
        if not synonyms & own:
            if synonyms & anyones:
                return False
            strange += 1
    return strange <= _MOST_UNKNOWN


def _synonyms(names: str) -> frozenset[str]:
    return frozenset(word.strip().rstrip("0123456789").casefold() for word in names.split(","))


class _ShardUnit(NamedTuple):
    """One shard.

    Attributes:
        path: of the file.
        split: it belongs to.
        name: see Unit.
        files: see Unit.
        bytes: see Unit.
        first: number of its first row in its split.
        ranked: whether labels count ImageNet's sorted wnids.
    """

    path: Path
    split: Split
    name: str
    files: int
    bytes: int
    first: int
    ranked: bool

    def pieces(self, start: int) -> Iterator[Piece]:
        """See Unit."""
        number = start
        for number, row in enumerate(read_rows(self.path, start), start):
            yield self._piece(row, number)
            number += 1
        if number != self.files:
            raise DataError(f"{self.path} holds {number:,} rows, and {self.files:,} before. Start again with restart=true.")

    def _piece(self, row: Row, number: int) -> Piece:
        name, wnid = self._named(row, number)
        if row.data is None:
            self._refuse(number, f"holds no bytes (its path is {row.path!r}): only data sets with embedded images can be read")
        if not 0 < len(row.data) <= MOST_BYTES:
            self._refuse(number, f"holds {len(row.data):,} bytes: that is no image")
        told = self._of_label(row, number)
        if wnid is not None and told is not None and wnid != told:
            self._refuse(number, f"({row.path}) is of class {wnid} by its name, and of {told} by its label {row.label}")
        folder = wnid if wnid is not None else told
        if self.split == "test":
            return Piece("test", "", name, row.data)
        if folder is None:
            what = "its name tells no class, and its label counts classes that are not ImageNet's 1,000 in their order"
            self._refuse(number, f"({row.path!r}, label {row.label}): {what}")
        return Piece(self.split, folder, name, row.data)

    def _named(self, row: Row, number: int) -> tuple[str, str | None]:
        """Return the official name, and the wnid that the stored one tells."""
        if row.path is None:
            return f"{self.split}_{self.first + number:08d}.JPEG", None
        match = _TRAIN.fullmatch(row.path) if self.split == "train" else _FLAT.fullmatch(row.path)
        if match is None or (self.split != "train" and match[2] != self.split):
            self._refuse(number, f"has the path {row.path[:200]!r}, which names no image of the {self.split} split")
        if self.split == "train" and match[3] not in (None, match[2]):
            self._refuse(number, f"has the path {row.path!r}, which names two classes")
        return f"{match[1]}.JPEG", match[2] if self.split == "train" else match[3]

    def _of_label(self, row: Row, number: int) -> str | None:
        if self.split == "test":
            if row.label not in (-1, None):
                self._refuse(number, f"({row.path}) has the label {row.label}, and those of the test split are secret (-1)")
            return None
        if row.label is None or row.label < 0:
            self._refuse(number, f"({row.path}) has no label")
        if not self.ranked:
            return None
        if row.label >= _FULL_SIZE:
            self._refuse(number, f"({row.path}) has the label {row.label}, and there are {_FULL_SIZE:,} classes, counted from 0")
        return imagenet_wnids()[row.label]

    def _refuse(self, number: int, what: str) -> NoReturn:
        raise DataError(f"{self.path}, row {number}, {what}. Fetch the shard again.")


def _shards(source: Path) -> list[Shard]:
    if source.is_dir():
        return list_shards(source)
    paths = [source] if source.is_file() else sorted(source.parent.glob(source.name))
    return [shard for shard in map(shard_of, paths) if shard is not None]


def _units(shards: Sequence[Shard], footers: Sequence[Footer], ranked: bool) -> Iterator[_ShardUnit]:
    first = dict.fromkeys(("train", "val", "test"), 0)
    for shard, footer in zip(shards, footers, strict=True):
        yield _ShardUnit(
            shard.path, shard.split, f"{shard.split}/{shard.path.name}", footer.rows, footer.bytes, first[shard.split], ranked
        )
        first[shard.split] += footer.rows


def _state(path: Path) -> list[object]:
    state = os.stat(path)
    return [str(path.resolve()), state.st_size, state.st_mtime_ns]
