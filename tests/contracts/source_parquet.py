"""Hugging Face's Parquet files for the source's contract."""

from pathlib import Path
from typing import TYPE_CHECKING

from src.batch import Source
from src.data.sources.parquet import ParquetSource
from tests.pictures import KINDS, encode
from tests.unit.data.parquets import table_of, write_parquet
from tests.unit.data.tars import every

if TYPE_CHECKING:
    from tests.contracts.sources import Written

CLASSES = ("ant", "bee", "ça")
IMAGES = [encode(kind, 30 + at, 20 + 3 * label) for at, kind in enumerate(sorted(KINDS)) for label in (2, 0, 1)]
LABELS = [label for _ in KINDS for label in (2, 0, 1)]
SIZES = [[30 + at, 20 + 3 * label] for at in range(len(KINDS)) for label in (2, 0, 1)]


def write(folder: Path) -> "Written":
    from tests.contracts.sources import Written

    names = []
    for number, (start, end, compression) in enumerate(((0, 7, "snappy"), (7, 18, "none"))):
        path = folder / f"train-{number:05}-of-00002.parquet"
        write_parquet(
            path, table_of(IMAGES[start:end], LABELS[start:end], names=CLASSES), row_group_size=4, compression=compression
        )
        names += [f"{path.name}#{row}" for row in range(end - start)]
    return Written(CLASSES, LABELS, SIZES, names, IMAGES)


def open_(folder: Path) -> Source:
    paths = sorted(folder.glob("*.parquet"))
    return ParquetSource(paths, choose=every, cache_dir=folder / "cache", threads=2, progress=lambda done, total: None)


def damage(folder: Path) -> tuple[str, ...]:
    """Cut the last file's last byte off."""
    path = sorted(folder.glob("*.parquet"))[-1]
    path.write_bytes(path.read_bytes()[:-1])
    return (str(path), "truncated")
