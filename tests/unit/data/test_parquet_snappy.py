"""Images in large snappy pages are read without decompressing the page, and are the same bytes; what cannot be cut, whole."""

import numpy as np
import pyarrow as pa
import pytest

from src.data.parquet import reader as reader_module
from src.data.parquet.snappy import FRAGMENT, as_stream, find_cuts, piece
from tests.pictures import encode
from tests.unit.data.parquets import open_parquets, table_of, write_parquet

CODEC = pa.Codec("snappy")
LARGE = [encode("jpeg", 100 + 8 * number, 260, seed=number, quality=95) for number in range(40)]


@pytest.fixture
def decompressed(monkeypatch):
    """List the bytes of each decompression, by the real function."""
    sizes = []
    real = reader_module.decompress

    def counted(codec, data, size):
        sizes.append(size)
        return real(codec, data, size)

    monkeypatch.setattr(reader_module, "decompress", counted)
    return sizes


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [False, True])
def test_one_image_of_a_large_page_costs_what_it_needs(tmp_path, decompressed, dictionary, version):
    options = {"compression": "snappy", "use_dictionary": dictionary, "data_page_version": version, "row_group_size": 20}
    path = write_parquet(tmp_path / "a.parquet", table_of(LARGE, [0] * 40), **options)
    for opening in ("first", "second"):
        source = open_parquets(path)
        decompressed.clear()
        for index in np.random.default_rng(0).permutation(40).tolist():
            assert bytes(source.read(index).data) == LARGE[index], opening
        assert max(decompressed) <= max(map(len, LARGE)) + 2 * FRAGMENT < sum(map(len, LARGE[:20])) / 3


@pytest.mark.parametrize("size", [1, FRAGMENT - 1, FRAGMENT, FRAGMENT + 1, 5 * FRAGMENT, 5 * FRAGMENT + 77])
@pytest.mark.parametrize("content", ["noise", "zeros", "mixed"])
def test_every_piece_decompresses_to_its_part(size, content):
    rng = np.random.default_rng(size)
    noise = rng.bytes(size)
    sound = {
        "noise": noise,
        "zeros": bytes(size),
        "mixed": (b"".join(noise[at : at + 9000] + noise[:600] for at in range(0, size, 9000)))[:size],
    }[content]
    stream = CODEC.compress(sound, asbytes=True)
    cuts = find_cuts(stream, size)
    if content == "zeros" and size > 4 * FRAGMENT:
        assert cuts is None, "so many elements are not looked at"
        return
    assert cuts is not None
    assert cuts[-1] == len(stream)
    for _ in range(20):
        start = int(rng.integers(size))
        length = int(rng.integers(1, size - start + 1))
        first = start // FRAGMENT * FRAGMENT
        end = min(size, -(-(start + length) // FRAGMENT) * FRAGMENT)
        begin, stop = piece(cuts, start, length)
        part = CODEC.decompress(as_stream(stream[begin:stop], end - first), end - first, asbytes=True)
        assert part[start - first :][:length] == sound[start : start + length]


def literal(data: bytes) -> bytes:
    return bytes([61 << 2]) + (len(data) - 1).to_bytes(2, "little") + data


def test_a_stream_that_looks_back_over_a_cut_is_not_cut():
    """The format allows it; no writer that is known does it."""
    head = np.random.default_rng(0).bytes(FRAGMENT)
    back = bytes([(9 << 2) | 3]) + (1000).to_bytes(4, "little")  # ten bytes from 1,000 before
    crossing = as_stream(literal(head) + literal(b"x" * 20) + back, FRAGMENT + 30)
    assert CODEC.decompress(crossing, FRAGMENT + 30, asbytes=True)[-10:] == (head + b"x" * 20)[-1000:-990]
    assert find_cuts(crossing, FRAGMENT + 30) is None
    straddling = as_stream(literal(head[:-5]) + literal(b"x" * 10), FRAGMENT + 5)
    assert CODEC.decompress(straddling, FRAGMENT + 5, asbytes=True)[-10:] == b"x" * 10
    assert find_cuts(straddling, FRAGMENT + 5) is None


def test_damaged_streams_are_not_cut_wrongly():
    rng = np.random.default_rng(0)
    sound = rng.bytes(3 * FRAGMENT)
    stream = CODEC.compress(sound, asbytes=True)
    for _ in range(300):
        spoilt = bytearray(stream)
        spoilt[int(rng.integers(len(spoilt)))] ^= 1 << int(rng.integers(8))
        cuts = find_cuts(bytes(spoilt[: int(rng.integers(len(spoilt)))] if rng.random() < 0.5 else spoilt), len(sound))
        if cuts is not None:
            assert (np.diff(cuts.astype(np.int64)) > 0).all()
            assert len(cuts) == 4
