"""Tars for the source's contract: class folders, ImageNet's tar of class tars, and WebDataset shards."""

from pathlib import Path
from typing import TYPE_CHECKING

from src.batch import DataError, Source
from src.config import ConfigError, Problem
from src.data.sources.tar import TarSource
from tests.pictures import KINDS, encode
from tests.unit.data.tars import every, of_class_tars, write_tar

if TYPE_CHECKING:
    from tests.contracts.sources import Written

CLASSES = ("ant", "bee", "ça")
FILES = {
    f"{name}/{kind}.JPEG": encode(kind, 30 + at, 20 + 3 * label)
    for label, name in enumerate(CLASSES)
    for at, kind in enumerate(sorted(KINDS))
}
LABELS = [label for label in range(3) for _ in KINDS]
SIZES = [[30 + at, 20 + 3 * label] for label in range(3) for at in range(len(KINDS))]


def write_folders(folder: Path) -> "Written":
    from tests.contracts.sources import Written

    write_tar(folder / "train.tar", {f"./train/{name}": data for name, data in reversed(FILES.items())}, "pax")
    return Written(CLASSES, LABELS, SIZES, [f"train.tar/train/{name}" for name in FILES], list(FILES.values()))


def write_class_tars(folder: Path) -> "Written":
    from tests.contracts.sources import Written

    write_tar(folder / "train.tar", of_class_tars(FILES))
    names = [f"train.tar/{name.replace('/', '.tar/')}" for name in FILES]
    return Written(CLASSES, LABELS, SIZES, names, list(FILES.values()))


def write_shards(folder: Path) -> "Written":
    from tests.contracts.sources import Written

    shards: list[dict[str, bytes]] = [{}, {}]
    for number, (data, label) in enumerate(zip(FILES.values(), LABELS, strict=True)):
        shards[number // 10] |= {f"{number:04}.cls": b"%d" % label, f"{number:04}.jpg": data}
    for number, files in enumerate(shards):
        write_tar(folder / f"train-{number}.tar", files)
    names = [f"train-{number // 10}.tar/{number:04}.jpg" for number in range(len(FILES))]
    return Written(tuple(f"class_{label:04d}" for label in range(3)), LABELS, SIZES, names, list(FILES.values()))


def open_(folder: Path) -> Source:
    try:
        source = TarSource(
            sorted(folder.glob("*.tar")), choose=every, cache_dir=folder / "cache", threads=2, progress=lambda done, total: None
        )
    except DataError as error:
        raise ConfigError("the data", [Problem("data.train_path", str(folder), str(error))]) from error
    return source


def damage(folder: Path) -> tuple[str, ...]:
    """Change one letter of a member's name."""
    path = sorted(folder.glob("*.tar"))[-1]
    data = bytearray(path.read_bytes())
    at = max(data.rfind(b"bee/"), data.rfind(b"jpeg.JPEG"), data.rfind(b"0012.jpg"))
    data[at] += 1
    path.write_bytes(data)
    return (str(path), f"byte {at // 512 * 512:,}", "checksum")
