import io
import struct
import zlib

import pytest
from PIL import Image

from src.data import headers
from src.demo_page.pictures import FORMATS, look
from src.demo_page.words import Refused
from tests.pictures import encode
from tests.shown_model import odd_images

MOST, SIDE = 1_000_000, 256


def bomb(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and holds almost nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_formats_are_those_that_training_reads() -> None:
    assert FORMATS == headers.FORMATS


@pytest.mark.parametrize(("name", "data"), odd_images().items())
def test_a_sound_image_is_taken_with_its_size(name: str, data: bytes) -> None:
    looked = look(data, MOST, SIDE)
    with Image.open(io.BytesIO(data)) as image:
        assert (looked.width, looked.height) == image.size


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("moving.gif", "first frame"),
        ("turned.jpg", "Stored rotated"),
        ("alpha.png", "Transparent"),
        ("see_through.png", "Transparent"),
    ],
)
def test_a_visitor_is_told_what_evaluation_does_otherwise_than_a_viewer(name: str, words: str) -> None:
    (note,) = look(odd_images()[name], MOST, SIDE).notes
    assert words in note
    assert look(odd_images()["jpeg.jpg"], MOST, SIDE).notes == ()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "The file is empty"),
        (b"only text\n" * 50, "no image that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image that can be read"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(100), "HEIC and AVIF pictures cannot be read"),
        (encode("jpeg")[:20], "no image that can be read"),
        (bomb(60_000, 60_000), "far too large"),
        (bomb(1001, 1000), "1,001 x 1,000 pixels"),
        (bomb(4, 200_000), "too long and thin"),
        (encode("ICO"), "no image that can be read"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words) as refused:
        look(data, MOST, SIDE)
    assert "/" not in str(refused.value) and "0x" not in str(refused.value)


def test_the_largest_image_that_may_be_is_taken() -> None:
    assert look(bomb(1000, 1000), MOST, SIDE).width == 1000
