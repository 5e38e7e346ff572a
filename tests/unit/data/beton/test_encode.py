"""What is stored of one image."""

import io

import numpy as np
import pytest
from PIL import Image

from src.batch import DataError, Encoded
from src.data.beton.encode import Recipe, Stored, shrink, shrunk_sizes, store, stored_raw
from tests.pictures import encode, exif, noise, segment, with_segments

RECIPE = Recipe(500, 90, "jpg", 0.5, "reencode")
ORIGINAL = RECIPE._replace(jpeg_bytes="original")


def stored(data: bytes, recipe: Recipe = RECIPE, raw: bool = False) -> Stored:
    return store(Encoded(data, "codestream", 0, 0), raw=raw, recipe=recipe)


def pixels_of(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def brightness(pixels: np.ndarray) -> np.ndarray:
    return pixels @ np.array([0.299, 0.587, 0.114])


@pytest.mark.parametrize("kind", ["jpeg", "grey", "progressive"])
def test_jpegs_that_every_decoder_reads_alike_are_kept_byte_for_byte(kind):
    data = encode(kind)
    assert stored(data, ORIGINAL)[:4] == (data, False, 40, 30)
    assert stored(data, ORIGINAL).kept
    rotated = with_segments(data, exif(b"\0" * 70))
    assert stored(rotated, ORIGINAL).data == rotated


ODD = {
    "cmyk": encode("cmyk"),
    "png": encode("png"),
    "palette": encode("palette"),
    "rgb stored as such": encode("jpeg", keep_rgb=True),
    "adobe rgb": with_segments(encode("jpeg"), segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")),
}


@pytest.mark.parametrize("kind", ODD)
def test_other_images_become_plain_jpegs(kind):
    made = stored(ODD[kind], ORIGINAL._replace(jpeg_quality=100))
    assert not made.kept
    with Image.open(io.BytesIO(made.data)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (40, 30))
    difference = brightness(pixels_of(made.data)) - brightness(pixels_of(ODD[kind]))
    assert np.abs(difference).mean() < 3  # the colours are kept at half the size


def test_what_is_encoded_anew_is_like_opencvs_a_baseline_jpeg_with_half_the_colours():
    with Image.open(io.BytesIO(stored(encode("progressive", comment=b"x", dpi=(300, 300))).data)) as image:
        assert image.layer[0][1:3] == (2, 2)
        assert not image.info.get("progressive")
        assert "comment" not in image.info


def test_pixels_are_stored_without_loss():
    made = stored(encode("png"), raw=True)
    assert (made.raw, made.width, made.height) == (True, 40, 30)
    assert bytes(made.data) == noise(40, 30).tobytes()
    again = store(Encoded(noise(40, 30), "raw", 40, 30), raw=True, recipe=RECIPE)
    assert again.data == made.data
    assert again.crc == made.crc


def test_larger_images_are_shrunk_and_smaller_ones_never_enlarged():
    made = stored(encode("jpeg", 120, 90), ORIGINAL._replace(max_resolution=100))
    assert (made.width, made.height, made.shrunk, made.kept) == (100, 75, True, False)
    assert pixels_of(made.data).shape == (75, 100, 3)
    assert stored(encode("jpeg", 100, 75), ORIGINAL._replace(max_resolution=100)).kept
    assert shrunk_sizes(np.array([[3000, 2], [7, 9]], np.int32), 500).tolist() == [[500, 1], [7, 9]]
    assert shrunk_sizes(np.array([[3000, 2]], np.int32), None).tolist() == [[3000, 2]]


@pytest.mark.parametrize("size", [(40, 30), (39, 30), (1, 1), (17, 29), (20, 15), (40, 1), (33, 7)])
def test_shrinking_averages_the_area_under_each_pixel(size):
    image = noise(40, 30)
    expected = np.rint(weights(30, size[1]) @ np.moveaxis(weights(40, size[0]) @ image.astype(float), 2, 0)).transpose(1, 2, 0)
    assert np.abs(shrink(image, *size).astype(int) - expected).max() <= 1
    assert np.array_equal(shrink(np.full((30, 40, 3), 255, np.uint8), *size), np.full((size[1], size[0], 3), 255))


def weights(old: int, new: int) -> np.ndarray:
    """(new, old): the share of each new pixel that lies over each old one."""
    return np.array(
        [[max(0.0, min((i + 1) * old / new, j + 1) - max(i * old / new, j)) * new / old for j in range(old)] for i in range(new)]
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encode("jpeg")[:-200], "truncated"),
        (encode("png")[:-200], "cannot be decoded"),
        (b"", "cannot identify"),
        (b"<html>", "cannot identify"),
    ],
)
@pytest.mark.parametrize("recipe", [RECIPE, ORIGINAL])
def test_bad_images_are_refused(data, reason, recipe):
    with pytest.raises(DataError, match=f"cannot be decoded: .*{reason}" if reason != "cannot be decoded" else reason):
        stored(data, recipe)


def test_images_too_wide_for_the_file_are_refused():
    wide = np.zeros((1, 65_536, 3), np.uint8)
    with pytest.raises(DataError, match=r"is too large for a \.beton: 65536 x 1 px"):
        store(Encoded(wide, "raw", 65_536, 1), raw=True, recipe=RECIPE._replace(max_resolution=None))


def test_which_samples_are_pixels_depends_on_their_number_alone():
    recipe = RECIPE._replace(mode="proportion", raw_fraction=0.3)
    draws = stored_raw(recipe, 10_000)
    assert abs(draws.mean() - 0.3) < 0.015
    assert np.array_equal(stored_raw(recipe, 500), draws[:500])
    assert not (draws & ~stored_raw(recipe._replace(raw_fraction=0.4), 10_000)).any()
    assert stored_raw(recipe._replace(mode="raw"), 5).all()
    assert not stored_raw(RECIPE, 5).any()
