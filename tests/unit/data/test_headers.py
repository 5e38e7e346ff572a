"""Headers: the size of what is stored, without decoding it, and every broken file refused with its reason."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from src.data import headers
from src.data.headers import read_header
from tests.pictures import KINDS, encode, exif, segment, with_segments

THUMBNAIL = encode("jpeg", 7, 5)
MPF = segment(0xE2, b"x" * 60_000)
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def header_of(tmp_path, data: bytes, name: str = "x.JPEG"):
    """Look at a file, at the same bytes in memory, and at the same bytes amid others: three ways, one answer."""
    path = tmp_path / name
    path.write_bytes(data)
    header = read_header(str(path))
    assert headers.header_of(data) == headers.header_of(np.frombuffer(data, np.uint8)) == header
    with open(tmp_path / "amid", "wb+") as file:
        file.write(b"\xff\xd8\xff" + data + b"\xff\xd9 and more")
        file.flush()
        assert headers.header_at(file.fileno(), 3, len(data)) == header
    return header


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def without_picture(data: bytes) -> bytes:
    """Return the file with its picture cut out, its header and its end intact: whoever decodes it fails."""
    if data.startswith(PNG_MAGIC):
        start = data.index(b"IDAT")
        return data[: start + 4] + b"\0\0\0\0" + data[data.index(b"IEND") - 4 :]
    frame = max(data.find(b"\xff\xc0\0"), data.find(b"\xff\xc2\0"))
    return data[: frame + 4 + int.from_bytes(data[frame + 2 : frame + 4], "big")] + b"\xff\xd9"


@pytest.mark.parametrize("kind", [*KINDS, "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_sizes_of_every_kind_whatever_the_name(tmp_path, kind):
    for size in [(40, 30), (1, 1), (1, 300), (300, 1), (133, 200)]:
        data = encode(kind, *size)
        for name in ("x.JPEG", "x.png", "x.bmp"):
            assert header_of(tmp_path, data, name) == (*size, "")


@pytest.mark.parametrize("kind", KINDS)
def test_jpeg_and_png_are_not_decoded(tmp_path, kind):
    data = without_picture(encode(kind))
    with pytest.raises((OSError, SyntaxError, ValueError)), Image.open(io.BytesIO(data)) as image:
        image.load()
    assert header_of(tmp_path, data) == (40, 30, "")


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_exif_orientation_turns_nothing(tmp_path, kind, orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    data = encode(kind, exif=tags.tobytes())
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif()[0x0112] == orientation
    assert header_of(tmp_path, data) == (40, 30, "")
    assert header_of(tmp_path, data + b"which is then decoded") == (40, 30, "")


@pytest.mark.parametrize(
    "segments",
    [
        (exif(THUMBNAIL),),
        (exif(THUMBNAIL + bytes(15_000)),),
        (exif(encode("jpeg", 160, 120, quality=95)),),
        (exif(THUMBNAIL + bytes(60_000)),),
        (MPF, MPF, MPF),
        (exif(encode("jpeg", 160, 120, quality=95)), MPF),
    ],
    ids=["small", "frame across 16 KiB", "frame behind 16 KiB", "largest", "three segments", "both"],
)
@pytest.mark.parametrize("kind", ["jpeg", "progressive"])
def test_the_size_is_the_pictures_and_not_the_thumbnails(tmp_path, kind, segments):
    assert header_of(tmp_path, with_segments(encode(kind), *segments)) == (40, 30, "")


def test_the_size_is_right_wherever_the_first_read_ends(tmp_path):
    data = encode("jpeg")
    head = len(data[: data.index(b"\xff\xc0")])
    for shift in range(-12, 4):
        padded = with_segments(data, segment(0xFE, bytes(16 * 1024 - head - 4 + shift)))
        assert header_of(tmp_path, padded) == (40, 30, ""), shift


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # Pillow's own, and the very file that is tested
def test_a_broken_exif_block_does_no_harm(tmp_path):
    broken = segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff broken")
    assert header_of(tmp_path, with_segments(encode("jpeg"), broken)) == (40, 30, "")
    assert header_of(tmp_path, with_segments(encode("jpeg"), broken) + b"trailing") == (40, 30, "")


def test_fill_bytes_before_a_marker_are_skipped(tmp_path):
    data = encode("jpeg")
    frame = data.index(b"\xff\xc0")
    assert header_of(tmp_path, without_picture(data[:frame] + b"\xff\xff\xff" + data[frame:])) == (40, 30, "")


@pytest.mark.parametrize("marker", [0xC4, 0xC8, 0xCC, 0xDB, 0xDD, 0xFE])
def test_only_a_frame_header_gives_the_size(tmp_path, marker):
    """Tables and comments may stand before it, two of them with the look of a frame's marker."""
    assert header_of(tmp_path, without_picture(with_segments(encode("jpeg"), segment(marker, bytes(range(1, 40)))))) == (40, 30, "")


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_behind_the_end_do_no_harm(tmp_path, kind):
    data = encode(kind)
    for garbage in (b"\0", b"\n\n", b"garbage" * 10, bytes(40_000), b"\xff\xd9\0"):
        assert header_of(tmp_path, data + garbage) == (40, 30, "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_refused_wherever_it_was_cut(tmp_path, kind):
    data = encode(kind, 60, 50)
    # A PNG's last bytes, end marks and checksums, hold no pixels: Pillow reads the picture whole without them.
    last = len(data) - 32 if data.startswith(PNG_MAGIC) else len(data)
    for end in [*range(1, 64), *range(64, last, max(1, last // 60)), last - 2, last - 1]:
        width, height, fault = header_of(tmp_path, data[:end])
        assert (width, height) == (0, 0), f"cut at {end} of {len(data)}"
        assert fault


@pytest.mark.parametrize("kind", ["png", "palette"])
def test_a_png_without_its_last_bytes_is_whole_or_refused(tmp_path, kind):
    data = encode(kind, 60, 50)
    with Image.open(io.BytesIO(data)) as image:
        pixels = image.tobytes()
    for end in range(len(data) - 32, len(data)):
        if not header_of(tmp_path, data[:end]).fault:
            with Image.open(io.BytesIO(data[:end])) as image:
                assert image.tobytes() == pixels, f"cut at {end} of {len(data)}"


def test_a_file_cut_behind_its_thumbnail_is_refused(tmp_path):
    data = with_segments(encode("jpeg"), exif(THUMBNAIL))
    cut = data[: data.index(THUMBNAIL) + len(THUMBNAIL)]
    assert cut.endswith(b"\xff\xd9")
    assert header_of(tmp_path, cut).fault


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"x", "no image"),
        (b"<html>404 Not Found</html>", "no image"),
        (bytes(100_000), "no image"),
        (b"\xff\xd8", "no image"),
        (b"\xff\xd8\xff\xd9", "no image"),
        (encode("jpeg")[:400], "cannot be decoded"),
        (encode("png")[:400], "cannot be decoded"),
    ],
    ids=["empty", "a byte", "html", "zeros", "a marker", "no frame", "truncated jpeg", "truncated png"],
)
def test_the_fault_says_what_is_wrong(tmp_path, data, reason):
    width, height, fault = header_of(tmp_path, data)
    assert (width, height) == (0, 0)
    assert reason in fault


def test_a_file_that_cannot_be_opened_is_refused(tmp_path):
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    assert read_header(str(tmp_path / "dangling.jpg")) == (0, 0, "cannot be read (No such file or directory)")


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 1), (2**31 - 1, 2**31 - 1), (2**32 - 1, 2**32 - 1)])
def test_a_png_that_claims_to_be_huge_is_refused(tmp_path, size):
    frame = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    bomb = PNG_MAGIC + frame + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    width, height, fault = header_of(tmp_path, bomb)
    assert (width, height) == (0, 0)
    assert "cannot be decoded" in fault


@pytest.mark.parametrize("size", [(0, 30), (40, 0), (0, 0)])
def test_an_image_without_pixels_is_refused(tmp_path, size):
    frame = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    assert header_of(tmp_path, PNG_MAGIC + frame + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")).fault
    data = encode("jpeg")
    at = data.index(b"\xff\xc0") + 5
    assert header_of(tmp_path, data[:at] + struct.pack(">HH", size[1], size[0]) + data[at + 4 :]).fault
