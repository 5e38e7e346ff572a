"""The parts that read Parquet's pages: what they accept is what the format says, and every length is held against its bytes."""

import struct

import numpy as np
import pytest

from src.batch import DataError
from src.data.parquet.arrow import CODECS, read_table
from src.data.parquet.pages import Chunk, Page, list_pages
from src.data.parquet.thrift import TooShortError, read_struct
from src.data.parquet.values import hybrid, plain_spans
from tests.unit.data.parquets import labels_of, pictures, table_of, write_parquet

IMAGES, LABELS = pictures(40), labels_of(40)


def test_a_struct_is_read_or_refused_whatever_the_bytes(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(3000):
        try:
            read_struct(rng.bytes(int(rng.integers(200))))
        except ValueError as error:
            assert isinstance(error, TooShortError) or str(error)
    with pytest.raises(ValueError, match="structs within"):
        read_struct(b"\x1c" * 100_000)
    with pytest.raises(TooShortError):
        read_struct(b"\x19\xf3" + b"\xff" * 8 + b"\x7f" + bytes(100))  # a list of 2**62 bytes


def test_runs_are_decoded_as_they_were_made():
    rng = np.random.default_rng(0)
    for width in range(1, 20):
        numbers = rng.integers(0, 2**width, 64)
        bits = ((numbers[:, None] >> np.arange(width)) & 1).astype(np.uint8)
        packed = bytes([8 << 1 | 1]) + np.packbits(bits, bitorder="little").tobytes()
        run = struct.pack("<B", 50 << 1) + int(numbers[0]).to_bytes((width + 7) // 8, "little")
        assert hybrid(run + packed, width, 110).tolist() == [numbers[0]] * 50 + numbers[:60].tolist()
        with pytest.raises(DataError):
            hybrid(run + packed[:-1], width, 114)
        with pytest.raises(DataError):
            hybrid(run, width, 49)
    assert hybrid(b"\x10", 0, 8).tolist() == [0] * 8


def test_values_must_fill_their_page():
    values = b"".join(struct.pack("<I", len(data)) + data for data in (b"abc", b"", b"de"))

    def spans(data: bytes, count: int) -> list[list[int]]:
        return [column.tolist() for column in plain_spans(lambda start, length: data[start : start + length], 0, len(data), count)]

    assert spans(values, 3) == [[4, 11, 15], [3, 0, 2]]
    for data, count in ((values, 2), (values + bytes(4), 3), (values[:-1], 3), (values, 4), (values + b"\xff" * 4, 4), (b"", 1)):
        with pytest.raises(DataError):
            spans(data, count)


def test_pages_must_add_up_to_what_the_footer_tells(tmp_path):
    path = write_parquet(
        tmp_path / "a.parquet",
        table_of(IMAGES, LABELS),
        compression="none",
        use_dictionary=False,
        data_page_size=3000,
        write_batch_size=4,
    )
    data, (chunk,) = path.read_bytes(), read_table(path).chunks

    def pages(**changed: int) -> list[Page]:
        return list_pages(lambda start, count: data[start : start + count], chunk._replace(**changed), file=0, number=0)

    assert sum(page.rows for page in pages()) == 40
    for changed in ({"rows": 39}, {"rows": 41}, {"rows": 2**40}, {"end": chunk.end - 1}, {"start": chunk.start + 1}):
        with pytest.raises(DataError, match="is damaged"):
            pages(**changed)


def page_header(stored: int, size: int, rows: int) -> bytes:
    def number(value: int) -> bytes:
        value, digits = 2 * value, b""
        while value > 0x7F:
            digits, value = digits + bytes([value & 0x7F | 0x80]), value >> 7
        return b"\x15" + digits + bytes([value])

    return number(0) + number(size) + number(stored) + b"\x2c" + number(rows) + number(0) + number(3) + number(3) + b"\0\0"


def test_a_page_that_claims_to_hold_gigabytes_is_refused():
    """The header is well formed: this is malice, not damage."""
    chunk = Chunk(start=0, end=1000, codec=CODECS.index("GZIP"), rows=3, deepest=0)

    def pages(size: int) -> list[Page]:
        data = page_header(100, size, 3) + bytes(900)
        return list_pages(lambda start, count: data[start : start + count], chunk, file=0, number=0)

    assert [(page.stored, page.size, page.rows) for page in pages(5000)] == [(100, 5000, 3)]
    with pytest.raises(DataError, match=r"claims that 100 bytes hold 2,000,000,000"):
        pages(2_000_000_000)
