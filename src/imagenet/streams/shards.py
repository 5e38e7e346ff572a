"""Parquet shards as Hugging Face's datasets writes them: what their footers tell, and their rows in small batches.

    image: struct<bytes: binary, path: string>, label: int64

pyarrow reads the values. The headers of pages are looked at before, for a page may claim to inflate to 2 GiB.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from src.batch import DataError
from src.data.parquet.arrow import CODECS
from src.data.parquet.pages import Chunk, list_pages

_BATCH = 32  # rows: of ImageNet about 4 MB
_BUFFER = 2**20
_MOST_PAGE = 2**29  # pyarrow puts 1,024 images into a page unless row groups are smaller: of ImageNet 118 MB
_MOST_ROWS = 2**22
_AGAIN = "Fetch it again."


class Footer(NamedTuple):
    """What a shard tells of itself.

    Attributes:
        rows: how many.
        bytes: of the images, about.
        classes: names of its labels; None where it has none.
    """

    rows: int
    bytes: int
    classes: tuple[str, ...] | None


class Row(NamedTuple):
    """One sample.

    Attributes:
        data: the image file; None where only a path was stored.
        path: its name; None where none was stored.
        label: -1 where it is secret; None where none was stored.
    """

    data: bytes | None
    path: str | None
    label: int | None


def read_footer(path: Path) -> Footer:
    """Read what a shard tells of itself, and its page headers' claims.

    Raises:
        DataError: naming the shard, and what is wrong with it.
    """
    with _Open(path) as shard:
        schema, metadata = shard.file.schema_arrow, shard.file.metadata
        _check_columns(path, schema, shard.pa)
        if not 0 <= metadata.num_rows <= _MOST_ROWS:
            raise DataError(f"{path} tells of {metadata.num_rows:,} rows. {_AGAIN}")
        text = (schema.metadata or {}).get(b"huggingface")
        label = (json.loads(text)["info"]["features"] if text else {}).get("label", {})
        names = label.get("names")
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise DataError(f"{path}: the class names in its metadata are no list of words. {_AGAIN}")
        size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
        return Footer(metadata.num_rows, min(size, _most(path)), tuple(names) if names is not None else None)


def read_rows(path: Path, start: int) -> Iterator[Row]:
    """Yield the rows from number `start` on. Whole row groups before it are not read.

    Raises:
        DataError: naming the shard, and what is wrong with it.
    """
    with _Open(path) as shard:
        _check_columns(path, shard.file.schema_arrow, shard.pa)
        metadata = shard.file.metadata
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            if start >= rows:
                start -= rows
                continue
            _check_pages(path, metadata.row_group(group))
            for batch in shard.file.iter_batches(_BATCH, row_groups=[group], columns=["image", "label"], use_threads=False):
                if start >= batch.num_rows:
                    start -= batch.num_rows
                    continue
                part = batch.slice(start)
                start = 0
                image, label = part.column("image"), part.column("label")
                data, names = image.field("bytes"), image.field("path")
                for row in range(part.num_rows):
                    there = image[row].is_valid
                    yield Row(data[row].as_py() if there else None, names[row].as_py() if there else None, label[row].as_py())


class _Open:
    """A parquet file, and pyarrow's errors as ours."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> "_Open":
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError as error:
            raise DataError(f"{self._path} is read by pyarrow. Run pip install 'imagenet-trainer[hf]'.") from error
        self.pa: Any = pa
        try:
            self.file = parquet.ParquetFile(
                self._path, pre_buffer=False, buffer_size=_BUFFER, page_checksum_verification=True, memory_map=False
            )
        except Exception as error:
            raise self._told(error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.file.close()
        if isinstance(error, Exception) and not isinstance(error, DataError):
            raise self._told(error) from error

    def _told(self, error: Exception) -> Exception:
        if isinstance(error, FileNotFoundError | PermissionError):
            return DataError(f"{self._path} cannot be read: {error.strerror}.")
        return DataError(f"{self._path} cannot be read as Parquet ({str(error).strip()[:300]}). {_AGAIN}")


def _check_columns(path: Path, schema: Any, pa: Any) -> None:
    types = {field.name: field.type for field in schema}
    image, label = types.get("image"), types.get("label")
    inner = {child.name: child.type for child in image} if image is not None and pa.types.is_struct(image) else {}
    binary = inner.get("bytes")
    told = inner.get("path")
    if (
        len(types) == len(schema)
        and binary is not None
        and (pa.types.is_binary(binary) or pa.types.is_large_binary(binary))
        and told is not None
        and (pa.types.is_string(told) or pa.types.is_large_string(told))
        and label is not None
        and pa.types.is_integer(label)
    ):
        return
    listed = ", ".join(f"{field.name}: {field.type}" for field in schema)[:300]
    raise DataError(f"{path} has the columns {listed}; expected are image: struct<bytes: binary, path: string>, label: int64.")


def _check_pages(path: Path, group: Any) -> None:
    """Hold what page headers claim against the footer and against each other, before pyarrow makes room for it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for place in range(group.num_columns):
            column = group.column(place)
            if not column.path_in_schema.startswith(("image.", "label")):
                continue
            if column.compression not in CODECS:
                raise DataError(f"{path} is compressed with {column.compression}; what can be read is {', '.join(CODECS)}.")
            start = column.data_page_offset
            if column.has_dictionary_page and column.dictionary_page_offset and column.dictionary_page_offset >= 4:
                start = min(start, column.dictionary_page_offset)
            end = min(start + column.total_compressed_size, os.fstat(descriptor).st_size)
            chunk = Chunk(start, end, CODECS.index(column.compression), group.num_rows, 2)
            try:
                pages = list_pages(lambda at, count: os.pread(descriptor, count, at), chunk, file=0, number=0)
            except DataError as error:
                if "stores its images" in str(error):  # delta encodings are pyarrow's to read
                    continue
                raise DataError(f"{path} {error}. {_AGAIN}") from None
            most = max((page.size for page in pages), default=0)
            if most > _MOST_PAGE:
                raise DataError(
                    f"{path} holds a page of {most:,} bytes, more than {_MOST_PAGE:,}. Write it anew with smaller row groups."
                )
    finally:
        os.close(descriptor)


def _most(path: Path) -> int:
    return 64 * os.stat(path).st_size
