"""Small images of every kind that ImageNet holds, as the bytes of a file, and folders of them."""

import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

KINDS = ("jpeg", "progressive", "grey", "cmyk", "png", "palette")  # as ImageNet: told apart by content, never by name


def noise(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return uint8 (height, width, 3): ramps under noise, so that any shift, flip or swapped channel shows."""
    rng = np.random.default_rng([width, height, seed])
    ramp = np.stack(np.broadcast_arrays(np.linspace(0, 150, width)[None, :], np.linspace(0, 150, height)[:, None], 60.0), axis=-1)
    image: NDArray[np.uint8] = (ramp + rng.integers(0, 100, ramp.shape)).astype(np.uint8)
    return image


def encode(kind: str, width: int = 40, height: int = 30, seed: int = 0, **options: Any) -> bytes:
    """Return one image as a file of this kind: one of KINDS, or a format that Pillow writes ("BMP")."""
    image = Image.fromarray(noise(width, height, seed))
    match kind:
        case "jpeg":
            return _saved(image, "JPEG", **options)
        case "progressive":
            return _saved(image, "JPEG", progressive=True, **options)
        case "grey":
            return _saved(image.convert("L"), "JPEG", **options)
        case "cmyk":
            return _saved(image.convert("CMYK"), "JPEG", **options)
        case "png":
            return _saved(image, "PNG", **options)
        case "palette":
            return _saved(image.quantize(64), "PNG", **options)
        case _:
            return _saved(image, kind, **options)


def segment(marker: int, payload: bytes) -> bytes:
    """Return one segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """Put segments right behind the JPEG's first marker."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def exif(payload: bytes) -> bytes:
    """Return an EXIF segment that holds an empty directory and, behind it, a payload such as a thumbnail."""
    return segment(0xE1, b"Exif\0\0" + b"II*\0\x08\0\0\0" + b"\0\0" + b"\0\0\0\0" + payload)


def write_files(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder, and return the folder."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
