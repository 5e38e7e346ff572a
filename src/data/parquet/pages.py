"""The pages of one column chunk, from their headers: where each lies, and how its values are stored.

Format: apache/parquet-format, README.md and src/main/thrift/parquet.thrift. A page header has no checksum; what it tells is held
against the footer and against the page's own content, which must fill it exactly.
"""

from collections.abc import Callable
from typing import NamedTuple

from src.batch import DataError
from src.data.parquet.thrift import Fields, TooShortError, read_struct

PLAIN, DICTIONARY = 0, 8
_PLAIN_DICTIONARY, _RLE = 2, 3  # the older name of the same, and the one encoding of levels in use
_ENCODINGS = {
    4: "BIT_PACKED",
    5: "DELTA_BINARY_PACKED",
    6: "DELTA_LENGTH_BYTE_ARRAY",
    7: "DELTA_BYTE_ARRAY",
    9: "BYTE_STREAM_SPLIT",
}
_DATA, _INDEX, _DICTIONARY_PAGE, _DATA_V2 = range(4)
_FIRST_TRY, _MOST_HEADER = 2**10, 2**20  # bytes; a header may hold the least and the greatest value
_SMALL, _MOST_RATIO = 2**24, 64  # a larger page may grow so many times: images hardly do

Read = Callable[[int, int], bytes]


class Chunk(NamedTuple):
    """One row group's part of a column, as the footer tells of it.

    Attributes:
        start: its first byte in the file.
        end: behind its last byte.
        codec: place in arrow.CODECS; 0 is none.
        rows: how many.
        deepest: the definition level of a value that is there; 0 where the column cannot hold nulls.
    """

    start: int
    end: int
    codec: int
    rows: int
    deepest: int


class Page(NamedTuple):
    """One page. Kept as a row of int64.

    Attributes:
        file: which file.
        at: where the values begin (behind the levels, in version 2).
        stored: bytes of the values in the file.
        size: the same, decompressed.
        codec: place in arrow.CODECS; 0 is none.
        crc: of levels and values as they are stored; -1 where none was written.
        rows: values, nulls among them; 0 for a page of dictionary values, which are no rows.
        encoding: PLAIN or DICTIONARY.
        levels: bytes of the definition levels before the values; -1 in version 1, where they are part of the values.
        deepest: see Chunk.
        dictionary: number of the page with the dictionary; -1 where there is none.
        entries: values in a page of dictionary values.
    """

    file: int
    at: int
    stored: int
    size: int
    codec: int
    crc: int
    rows: int
    encoding: int
    levels: int
    deepest: int
    dictionary: int
    entries: int


def list_pages(read: Read, chunk: Chunk, *, file: int, number: int) -> list[Page]:
    """Walk over the pages of a chunk.

    Args:
        read: (start, count) to bytes of the file; fewer where it ends.
        chunk: of this file.
        file: its number, for the pages.
        number: of the first page.

    Raises:
        DataError: what is wrong, and at which byte. The caller puts the file's name before it.
    """
    pages: list[Page] = []
    at, rows, dictionary = chunk.start, 0, -1
    while rows < chunk.rows:
        fields, length = _header(read, at, chunk.end)
        body, stored, size = at + length, _count(fields, 3, at), _count(fields, 2, at)
        if stored > chunk.end - body:
            raise _damaged(at, f"claims {stored:,} bytes, and its column has {chunk.end - body:,} left")
        if size > max(_SMALL, _MOST_RATIO * stored):
            raise _damaged(at, f"claims that {stored:,} bytes hold {size:,}")
        kind = fields.get(1)
        if kind in (_DATA, _DATA_V2, _DICTIONARY_PAGE):
            page = _page(
                fields, at, chunk, Page(file, body, stored, size, chunk.codec, -1, 0, PLAIN, -1, chunk.deepest, dictionary, 0)
            )
            if kind == _DICTIONARY_PAGE:
                if pages:
                    raise _damaged(at, "is a second dictionary")
                dictionary = number
            rows += page.rows
            pages.append(page)
        elif kind != _INDEX:
            raise _damaged(at, f"is of the unknown type {kind}")
        at = body + stored
    if rows != chunk.rows:
        raise DataError(
            f"is damaged: the column at byte {chunk.start:,} has {rows:,} values, and the footer tells of {chunk.rows:,}"
        )
    return pages


def _page(fields: Fields, at: int, chunk: Chunk, page: Page) -> Page:
    kind = fields[1]
    details = fields.get({_DATA: 5, _DICTIONARY_PAGE: 7, _DATA_V2: 8}[kind])
    if not isinstance(details, dict):
        raise _damaged(at, "lacks the header of its type")
    count = _count(details, 1, at)
    encoding = _count(details, 4 if kind == _DATA_V2 else 2, at)
    if encoding == _PLAIN_DICTIONARY:
        encoding = PLAIN if kind == _DICTIONARY_PAGE else DICTIONARY
    if encoding not in (PLAIN, DICTIONARY) or (encoding == DICTIONARY and page.dictionary < 0):
        raise DataError(
            f"stores its images as {_ENCODINGS.get(encoding, encoding)} (byte {at:,}), which cannot be read image by image. "
            "Write it anew with PLAIN or dictionary encoding, which are pyarrow's default"
        )
    crc = fields.get(4, -1)
    crc = crc & 0xFFFFFFFF if 4 in fields and isinstance(crc, int) else -1
    page = page._replace(encoding=encoding, crc=crc)
    if kind == _DICTIONARY_PAGE:
        return page._replace(entries=count)
    if count > chunk.rows:
        raise _damaged(at, f"claims {count:,} values, and its column has {chunk.rows:,}")
    if kind == _DATA:
        if chunk.deepest and _count(details, 3, at) != _RLE:
            raise _damaged(at, "has levels of an encoding that nobody writes")
        return page._replace(rows=count)
    levels = _count(details, 5, at)
    if _count(details, 6, at) or levels > min(page.stored, page.size):
        raise _damaged(at, "tells of levels that do not fit")
    codec = page.codec if details.get(7, True) else 0
    return page._replace(
        rows=count, levels=levels, at=page.at + levels, stored=page.stored - levels, size=page.size - levels, codec=codec
    )


def _header(read: Read, at: int, end: int) -> tuple[Fields, int]:
    length = _FIRST_TRY
    while True:
        data = read(at, max(0, min(length, end - at)))
        try:
            return read_struct(data)
        except TooShortError:
            if length >= _MOST_HEADER or len(data) < length:
                raise _damaged(at, "has a header without an end") from None
            length *= 8
        except ValueError as error:
            raise _damaged(at, f"has no header ({error})") from error


def _count(fields: Fields, number: int, at: int) -> int:
    value = fields.get(number)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise _damaged(at, f"has a header whose field {number} is {value!r}")
    return value


def _damaged(at: int, what: str) -> DataError:
    return DataError(f"is damaged: the page at byte {at:,} {what}")
