"""The .beton for the source's contract: JPEGs kept byte for byte, and some images as pixels."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from src.batch import Source
from src.data.beton.encode import Recipe, stored_raw
from src.data.beton.writer import write_beton
from src.data.sources.beton import open_all
from tests.contracts.engines import open_folder
from tests.pictures import encode, write_files

if TYPE_CHECKING:
    from tests.contracts.sources import Written

KINDS = ("grey", "jpeg", "progressive")


def write(folder: Path) -> "Written":
    from tests.contracts.sources import Written

    files = {
        f"{name}/{kind}.JPEG": encode(kind, 30 + at, 20 + 3 * label)
        for label, name in enumerate(("ant", "bee", "ça"))
        for at, kind in enumerate(KINDS)
    }
    images = open_folder(write_files(folder / "images", files), folder / "cache")
    written = write_beton(
        images, folder / "train.beton", workers=2, progress=_quiet, mode="proportion", raw_fraction=0.3, jpeg_bytes="original"
    )
    raw = stored_raw(Recipe(500, 90, "proportion", 0.3, "original"), len(files))
    assert 0 < written.raw == raw.sum() < len(files)
    data = [_pixels(jpeg) if as_pixels else jpeg for jpeg, as_pixels in zip(files.values(), raw, strict=True)]
    sizes = [[30 + at, 20 + 3 * label] for label in range(3) for at in range(len(KINDS))]
    labels = [label for label in range(3) for _ in KINDS]
    return Written(("ant", "bee", "ça"), labels, sizes, [f"train.beton#{row}" for row in range(len(files))], data)


def open_(folder: Path) -> Source:
    return open_all(folder / "train.beton")


def damage(folder: Path) -> tuple[str, ...]:
    """Give a sample the label of another class: every other part of the file agrees with it."""
    with open(folder / "train.beton", "r+b") as file:
        file.seek(24 + 2 * 1041 + 16)
        file.write(b"\x01")
    return (str(folder / "train.beton"), "does not belong", "damaged")


def _pixels(jpeg: bytes) -> bytes:
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image.convert("RGB")).tobytes()


def _quiet(done: int, total: int, size: int) -> None:
    pass
