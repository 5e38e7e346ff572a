"""A visitor's bytes, looked at before anything is decoded: format by content, size, and what the visitor should know."""

import io
import warnings
from typing import NamedTuple

from PIL import ExifTags, Image, UnidentifiedImageError

from .words import Refused

# As src/data/headers.py has it: what training and evaluation read. A test compares them.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
UNDECODABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
DAMAGED = "This image is damaged or incomplete: it cannot be decoded to its end."
_TELL_FORMATS = "JPEG, PNG, WebP, GIF, BMP, TIFF and PPM can be read."
_UPRIGHT = 1


def trust_the_cap() -> None:
    """Let Pillow say nothing of images between its warning (89 million pixels) and its refusal: our own cap decides."""
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


class Looked(NamedTuple):
    """A picture that may be decoded.

    Attributes:
        notes: what its visitor should know of how the model meets it.
    """

    width: int
    height: int
    notes: tuple[str, ...]


def look(data: bytes, max_pixels: int, resize_size: int) -> Looked:
    """Read an image's header. Nothing is decoded, so nothing can be a bomb.

    Args:
        data: the file.
        max_pixels: of the image, and of what it becomes when its shorter side is resized.
        resize_size: to which it is.

    Raises:
        Refused: it is no image, or too large.
    """
    if not data:
        raise Refused("The file is empty.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise Refused(
                    f"This image has {width:,} x {height:,} pixels, {width * height / 1e6:,.0f} million. "
                    f"At most {max_pixels / 1e6:,.0f} million are taken: make it smaller, and try again."
                )
            if resize_size**2 * max(width, height) > max_pixels * min(width, height):
                raise Refused(f"This image, {width:,} x {height:,} pixels, is too long and thin to be resized.")
            return Looked(width, height, _notes(image))
    except UnidentifiedImageError:
        raise Refused(_unknown(data)) from None
    except Image.DecompressionBombError:
        raise Refused(f"This image is far too large. At most {max_pixels / 1e6:,.0f} million pixels are taken.") from None
    except UNDECODABLE:
        raise Refused(DAMAGED) from None


def _unknown(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return f"HEIC and AVIF pictures cannot be read. Save it as a JPEG. {_TELL_FORMATS}"
    return f"This file is no image that can be read, whatever its name says. {_TELL_FORMATS}"


def _notes(image: Image.Image) -> tuple[str, ...]:
    """Say what evaluation does otherwise than a visitor may expect. What cannot be told is left out."""
    notes = []
    try:
        if getattr(image, "is_animated", False):
            notes.append("Animated: the model sees the first frame.")
            image.seek(0)
        if image.getexif().get(ExifTags.Base.Orientation, _UPRIGHT) != _UPRIGHT:
            notes.append(
                "Stored rotated: as in evaluation, the model sees the pixels as they are stored, not as viewers turn them."
            )
        if image.has_transparency_data:
            notes.append("Transparent: as in evaluation, transparency is dropped, and the colours below it are seen.")
    except UNDECODABLE:
        pass  # a damaged note hurts nobody; damaged pixels are told of when they are decoded
    return tuple(notes)
