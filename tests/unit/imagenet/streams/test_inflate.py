"""gzip block by block: what comes out, where damage is told, and that a bomb ends early."""

import gzip
import random
import threading
import zlib
from collections.abc import Iterator

import pytest

from src.batch import DataError
from src.imagenet.streams.inflate import Forward, gunzip, made_ahead

DATA = random.Random(1).randbytes(70_000) + bytes(3_000_000) + random.Random(2).randbytes(5)
PACKED = gzip.compress(DATA, 6, mtime=0)


def in_blocks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 7, 4096, 10**7])
def test_blocks_of_any_size_give_what_was_packed(size: int) -> None:
    packed = PACKED if size > 7 else gzip.compress(DATA[:2_000], mtime=0)
    assert b"".join(gunzip(in_blocks(packed, size))) == gzip.decompress(packed)


@pytest.mark.parametrize("size", [5, 100_000])
def test_members_one_behind_the_other_and_padding_are_read_as_gunzip_reads_them(size: int) -> None:
    packed = gzip.compress(b"one" * 50, mtime=0) + gzip.compress(b"", mtime=0) + gzip.compress(b"two", mtime=0)
    assert b"".join(gunzip(in_blocks(packed, size))) == b"one" * 50 + b"two"
    assert b"".join(gunzip(in_blocks(packed + bytes(700), size))) == b"one" * 50 + b"two"


def test_a_gzip_cut_off_anywhere_is_refused() -> None:
    packed = gzip.compress(DATA[:300], mtime=0)
    for length in range(len(packed)):
        with pytest.raises(DataError, match=f"is truncated: its gzip stream does not end within its {length:,} bytes"):
            list(gunzip(in_blocks(packed[:length], 50)))


def test_a_byte_changed_anywhere_is_refused_or_changes_nothing() -> None:
    original = gzip.compress(DATA[:300], mtime=0)
    refused = 0
    for at in range(len(original)):
        packed = bytearray(original)
        packed[at] ^= 0x10
        try:
            assert b"".join(gunzip(in_blocks(bytes(packed), 64))) == DATA[:300], "a header's time, name or system at most"
        except DataError as error:
            assert "byte" in str(error)
            refused += 1
    assert refused > len(original) - 10


def test_data_behind_a_gzip_are_refused() -> None:
    with pytest.raises(DataError, match="is damaged before byte"):
        list(gunzip(in_blocks(PACKED + b"more", 1_000)))


def test_a_bomb_ends_early() -> None:
    packer = zlib.compressobj(1, wbits=31)
    packed = b"".join(packer.compress(bytes(2**24)) for _ in range(40)) + packer.flush()  # 640 MiB
    made = 0
    with pytest.raises(DataError, match="is a bomb"):
        for block in gunzip(in_blocks(packed, 2**16)):
            made += len(block)
            assert len(block) <= 2**20
    assert 2**28 <= made < 2**29


def test_what_a_block_maker_raises_comes_out_in_its_place() -> None:
    def blocks() -> Iterator[bytes]:
        yield b"a"
        raise DataError("broken")

    with made_ahead(blocks()) as made:
        assert next(made) == b"a"
        with pytest.raises(DataError, match="broken"):
            next(made)


def test_who_leaves_early_leaves_no_thread() -> None:
    before = threading.active_count()
    with made_ahead(iter(lambda: b"x" * 1000, b"")) as made:
        next(made)
    assert threading.active_count() == before


def test_a_stream_with_places_equals_a_file_read_in_order() -> None:
    rng = random.Random(3)
    for _ in range(50):
        stream, at = Forward(in_blocks(DATA[:90_000], rng.randint(1, 9_000))), 0
        while at < 95_000:
            at += rng.choice((0, 0, rng.randint(0, 20_000)))
            count = rng.randint(0, 20_000)
            assert stream.read(at, count) == DATA[:90_000][at : at + count]
            at += count
    assert stream.read(0, 5) == b"", "what is past is past"
