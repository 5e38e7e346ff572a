"""The one file that imports pyarrow: footers, labels, decompression."""

import json
import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.batch import DataError
from src.data.parquet.pages import Chunk

CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "ZSTD", "LZ4")
_MAGIC, _ENCRYPTED = b"PAR1", b"PARE"
_AGAIN = "Fetch it again from where it came from."


class Table(NamedTuple):
    """What one file tells.

    Attributes:
        classes: names, where the file has them.
        labels: int64 (n,).
        chunks: of the column with the images, first to last.
    """

    classes: tuple[str, ...] | None
    labels: NDArray[np.int64]
    chunks: list[Chunk]


def read_table(path: Path) -> Table:
    """Read the footer and the labels of one file.

    Raises:
        DataError: naming the file, and what is wrong with it.
    """
    size = _check_ends(path)
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f"{path} is read by pyarrow. Run pip install 'imagenet-trainer[hf]'.") from error
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            if file.metadata.num_rows > size:
                raise DataError(f"{path} is damaged: {size:,} bytes cannot hold {file.metadata.num_rows:,} images. {_AGAIN}")
            features = _features(file.schema_arrow.metadata)
            image, leaf = _image_column(path, file.schema_arrow, features, pa)
            label = _label_column(path, file.schema_arrow, features, pa)
            labels = _labels(path, file, label)
            classes = _class_names(path, features.get(label, {}))
            chunks = _chunks(path, file, leaf, size)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({str(error).strip()}). {_AGAIN}") from error
    rows = sum(chunk.rows for chunk in chunks)
    if rows != len(labels):
        raise DataError(f"{path} is damaged: {rows:,} images and {len(labels):,} labels. {_AGAIN}")
    _check_labels(path, labels, classes, image)
    return Table(classes, labels, chunks)


def decompress(codec: int, data: bytes, size: int) -> bytes:
    """Decompress one page.

    Raises:
        DataError: the reason only.
    """
    import pyarrow as pa

    name = CODECS[codec]
    try:
        # What Parquet's footer calls LZ4 is Hadoop's framing or, since 2021, bare blocks, which pyarrow writes.
        found = pa.Codec("lz4_raw" if name == "LZ4" else name.lower()).decompress(data, size, asbytes=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"its page cannot be decompressed ({str(error).strip()})") from error
    if len(found) != size:
        raise DataError(f"its page has {len(found):,} bytes where its header tells of {size:,}")
    return bytes(found)


def _check_ends(path: Path) -> int:
    """Look at the magic numbers and the footer's length, for clearer words than pyarrow's."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head, tail = os.pread(file.fileno(), 4, 0), os.pread(file.fileno(), 8, max(0, size - 8))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if head == _ENCRYPTED or tail[4:] == _ENCRYPTED:
        raise DataError(f"{path} is encrypted. Write it anew without.")
    if head != _MAGIC:
        raise DataError(f"{path} is no Parquet file: it does not begin with PAR1.")
    if size < 12 or tail[4:] != _MAGIC:
        raise DataError(f"{path} is truncated: a Parquet file ends with PAR1, this one of {size:,} bytes does not. {_AGAIN}")
    footer = struct.unpack_from("<I", tail)[0]
    if footer > size - 12:
        raise DataError(f"{path} is damaged: its footer should have {footer:,} bytes, and the file has {size:,}. {_AGAIN}")
    return size - 8 - int(footer)


def _features(metadata: dict[bytes, bytes] | None) -> dict[str, dict[str, Any]]:
    """Return what Hugging Face's datasets tells of the columns; nothing where it did not write the file."""
    text = (metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    found = json.loads(text)["info"]["features"]
    return {name: feature for name, feature in found.items() if isinstance(feature, dict)}


def _image_column(path: Path, schema: Any, features: dict[str, dict[str, Any]], pa: Any) -> tuple[str, str]:
    """Return the column with the images, and the path of the leaf that holds their bytes."""

    def leaf(field: Any) -> str | None:
        kind = field.type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return str(field.name)
        if not pa.types.is_struct(kind):
            return None
        inner = {child.name: child.type for child in kind}.get("bytes")
        return (
            f"{field.name}.bytes" if inner is not None and (pa.types.is_binary(inner) or pa.types.is_large_binary(inner)) else None
        )

    leaves = {field.name: found for field in schema if (found := leaf(field)) is not None}
    named = [name for name in leaves if features.get(name, {}).get("_type") == "Image"]
    candidates = named or list(leaves)
    chosen = "image" if "image" in candidates else candidates[0] if len(candidates) == 1 else None
    if chosen is None:
        listed = ", ".join(f"{field.name}: {field.type}" for field in schema)[:500]
        many = (
            f"{len(candidates)} columns may hold the images ({', '.join(candidates)})" if candidates else "no column holds images"
        )
        raise DataError(f"{path}: {many}; one of struct<bytes: binary, path: string> is looked for. Its columns: {listed}.")
    return chosen, leaves[chosen]


def _label_column(path: Path, schema: Any, features: dict[str, dict[str, Any]], pa: Any) -> str:
    whole = [field.name for field in schema if pa.types.is_integer(field.type)]
    named = [name for name in whole if features.get(name, {}).get("_type") == "ClassLabel"]
    candidates = named or whole
    chosen = "label" if "label" in candidates else candidates[0] if len(candidates) == 1 else None
    if chosen is None:
        listed = ", ".join(f"{field.name}: {field.type}" for field in schema)[:500]
        many = (
            f"{len(candidates)} columns may hold the labels ({', '.join(candidates)})" if candidates else "no column holds labels"
        )
        raise DataError(f"{path}: {many}; a column label: int64 is looked for. Its columns: {listed}.")
    return str(chosen)


def _labels(path: Path, file: Any, name: str) -> NDArray[np.int64]:
    """Read the labels, and hold them against the least and the greatest that the footer tells of."""
    column = file.read(columns=[name], use_threads=False).column(name)
    if column.null_count:
        raise DataError(f"{path}: {column.null_count:,} rows have no {name}.")
    labels: NDArray[np.int64] = column.to_numpy().astype(np.int64)
    place, at = _place(file, name), 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group)
        part = labels[at : at + rows.num_rows]
        at += rows.num_rows
        told = _column(rows, place, name).statistics
        if told is not None and told.has_min_max and len(part) and (part.min() < told.min or part.max() > told.max):
            raise DataError(
                f"{path} is damaged: a {name} lies outside {told.min} to {told.max}, which the footer tells of. {_AGAIN}"
            )
    return labels


def _class_names(path: Path, feature: dict[str, Any]) -> tuple[str, ...] | None:
    names = feature.get("names")
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: the class names in its metadata are no list of strings. {_AGAIN}")
    return tuple(names)


def _chunks(path: Path, file: Any, leaf: str, footer: int) -> list[Chunk]:
    place = _place(file, leaf)
    kind = file.schema.column(place)
    if kind.max_repetition_level or kind.physical_type != "BYTE_ARRAY":
        raise DataError(f"{path}: the column {leaf} does not hold one image a row.")
    chunks = []
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group)
        column = _column(rows, place, leaf)
        start = column.data_page_offset
        if column.has_dictionary_page and column.dictionary_page_offset and column.dictionary_page_offset >= 4:
            start = min(start, column.dictionary_page_offset)
        end = start + column.total_compressed_size
        if not 4 <= start <= end <= footer or column.num_values != rows.num_rows or rows.num_rows < 0:
            raise DataError(
                f"{path} is damaged: its footer tells of images at bytes {start:,} to {end:,}, before byte {footer:,}. {_AGAIN}"
            )
        if column.compression not in CODECS:
            raise DataError(f"{path} is compressed with {column.compression}; what can be read is {', '.join(CODECS)}.")
        chunks.append(Chunk(start, end, CODECS.index(column.compression), rows.num_rows, kind.max_definition_level))
    return chunks


def _place(file: Any, leaf: str) -> int:
    """Return a leaf's place among the columns."""
    return [file.schema.column(at).path for at in range(len(file.schema))].index(leaf)


def _column(rows: Any, place: int, leaf: str) -> Any:
    """Return a row group's part of a column, which must be the column that the schema tells of."""
    column = rows.column(place)
    if column.path_in_schema != leaf:
        raise ValueError(f"a row group has {column.path_in_schema} in the place of {leaf}")
    return column


def _check_labels(path: Path, labels: NDArray[np.int64], classes: tuple[str, ...] | None, image: str) -> None:
    most = len(classes) if classes is not None else 1_000_000
    outside = np.flatnonzero((labels < 0) | (labels >= most))
    if len(outside):
        row, label = int(outside[0]), int(labels[outside[0]])
        why = (
            "Hugging Face gives -1 to a test split, whose labels are secret"
            if label == -1
            else f"there are {most:,} classes, counted from 0"
        )
        raise DataError(f"{path.name}#{row} has the label {label}: {why}. Name files whose rows of {image} have labels.")
