"""Parquet files as Hugging Face's datasets writes them, by pyarrow."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from src.data.sources.parquet import ParquetSource
from tests.unit.data.tars import every

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def table_of(
    images: Sequence[bytes | None],
    labels: Sequence[int | None],
    names: Any = ("ant", "bee", "cat"),
    image: str = "image",
    label: str = "label",
) -> pa.Table:
    """Return a table of images and labels; with names=None, without Hugging Face's metadata."""
    rows = [{"bytes": data, "path": f"{number}.jpg"} for number, data in enumerate(images)]
    table = pa.table({image: pa.array(rows, IMAGE), label: pa.array(labels, pa.int64())})
    if names is None:
        return table
    features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_parquet(path: Path, table: pa.Table, **options: Any) -> Path:
    """Write a table; options are pyarrow's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, **options)
    return path


def open_parquets(*paths: Path, **options: Any) -> ParquetSource:
    """Open all rows, in two threads."""
    options = {
        "choose": every,
        "threads": 2,
        "progress": lambda done, total: None,
        "cache_dir": paths[0].parent / "cache",
    } | options
    return ParquetSource(paths, **options)


def as_pyarrow_reads(*paths: Path) -> tuple[list[bytes], list[int]]:
    """Return all images and labels, by the library's own reader."""
    tables = [parquet.read_table(path) for path in paths]
    images = [row["bytes"] for table in tables for row in table.column("image").to_pylist()]
    return images, [label for table in tables for label in table.column("label").to_pylist()]


def pictures(count: int, seed: int = 0) -> list[bytes]:
    """Return tiny images, all different."""
    from tests.pictures import KINDS, encode

    return [
        encode(KINDS[number % len(KINDS)], 9 + number % 5, 8 + number % 3, seed=1000 * seed + number) for number in range(count)
    ]


def labels_of(count: int) -> list[int]:
    """Return labels in no order."""
    return np.random.default_rng(count).integers(0, 3, count).tolist()
