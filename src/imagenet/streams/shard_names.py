"""The names of Parquet shards, as Hugging Face's datasets and its hub give them: which files there are, and which are not there.

data/train-00000-of-00294.parquet
train/0000.parquet                     as the hub converts data sets
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from src.imagenet.pieces import Split

_SHARD = re.compile(r"(train|validation|valid|val|test)-(\d{5})-of-(\d{5})(?:-[0-9a-f]{16})?\.parquet", re.ASCII)
_NUMBERED = re.compile(r"(\d{4,5})\.parquet", re.ASCII)
_SPLITS: dict[str, Split] = {"train": "train", "validation": "val", "valid": "val", "val": "val", "test": "test"}
_SPLITS_IN_ORDER = ("train", "val", "test")


class Shard(NamedTuple):
    """One file, by its name alone.

    Attributes:
        path: of the file.
        split: it belongs to.
        number: in its split.
        of: how many there should be; None where names do not tell.
    """

    path: Path
    split: Split
    number: int
    of: int | None


def list_shards(folder: Path) -> list[Shard]:
    """List the shards in a folder, or in its folders data/ or train/, validation/, test/, sorted by split and number.

    Raises:
        OSError: a folder cannot be read.
    """
    found = [shard for place in (folder, folder / "data") if place.is_dir() for shard in map(shard_of, place.iterdir()) if shard]
    places = [folder / name for name in _SPLITS if (folder / name).is_dir()] if not found else []
    found += [shard for place in places for shard in map(shard_of, place.iterdir()) if shard]
    return sorted(found, key=lambda shard: (_SPLITS_IN_ORDER.index(shard.split), shard.number, shard.path.name))


def shard_of(path: Path) -> Shard | None:
    """Tell by its name which shard a file is; None where it is none."""
    match = _SHARD.fullmatch(path.name)
    if match is not None:
        return Shard(path, _SPLITS[match[1]], int(match[2]), int(match[3]))
    match = _NUMBERED.fullmatch(path.name)
    if match is not None and path.parent.name in _SPLITS:
        return Shard(path, _SPLITS[path.parent.name], int(match[1]), None)
    return None


def lacking(shards: Sequence[Shard]) -> list[str]:
    """Say which shards are not there, by split: "train: 00003 and 00007 of 00294"; and which are there twice."""
    told = []
    for split in _SPLITS_IN_ORDER:
        own = [shard for shard in shards if shard.split == split]
        totals = sorted({shard.of for shard in own if shard.of is not None})
        numbers = [shard.number for shard in own]
        if len(totals) > 1 or len(set(numbers)) < len(numbers):
            names = ", ".join(shard.path.name for shard in own[:3])
            told.append(f"{split}: shards of several writings lie side by side ({names}, ...). Keep one of them.")
            continue
        wanted = totals[0] if totals else max(numbers, default=-1) + 1
        missing = sorted(set(range(wanted)) - set(numbers))
        if missing:
            shown = ", ".join(f"{number:05d}" for number in missing[:5]) + (", ..." if len(missing) > 5 else "")
            told.append(f"{split}: {len(missing):,} of {wanted:,} shards are not there ({shown}). Fetch them.")
    return told
