"""Every source, written and opened the same way: a new one joins SOURCES and passes the suites. Importable by a spawned process."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.batch import Encoded, Source
from src.config import load
from src.data.build import build_source
from tests.contracts import source_beton, source_parquet, source_tar
from tests.pictures import KINDS, encode, write_files


class Written(NamedTuple):
    """What a source must tell of itself."""

    classes: tuple[str, ...]
    labels: list[int]
    sizes: list[list[int]]
    names: list[str]
    data: list[bytes] | None  # of every image; None where the source makes its images


class Entry(NamedTuple):
    """How the suites use a source.

    Attributes:
        write: makes one below a folder, and says what is in it.
        open: opens it, as the trainer does.
        damage: breaks it, and returns the words that the refusal must hold; None where nothing can break.
        outlives_deletion: who has it open keeps the deleted file's content, as it is mapped into memory, or open.
    """

    write: Callable[[Path], Written]
    open: Callable[[Path], Source]
    damage: Callable[[Path], tuple[str, ...]] | None
    outlives_deletion: bool = False


def _quiet(done: int, total: int) -> None:
    pass


def _write_folder(folder: Path) -> Written:
    files = {
        f"{name}/{kind}.JPEG": encode(kind, 30 + at, 20 + 3 * label)
        for label, name in enumerate(("ant", "bee", "ça"))
        for at, kind in enumerate(sorted(KINDS))
    }
    write_files(folder / "train", files)
    labels = [label for label in range(3) for _ in KINDS]
    sizes = [[30 + at, 20 + 3 * label] for label in range(3) for at in range(len(KINDS))]
    return Written(("ant", "bee", "ça"), labels, sizes, [f"train/{name}" for name in files], list(files.values()))


def _open_folder(folder: Path) -> Source:
    config = load(["data=imagefolder", f"data.path={folder}", f"data.cache_dir={folder}/cache"])
    return build_source(config.data, "train", threads=2, progress=_quiet)


def _damage_folder(folder: Path) -> tuple[str, ...]:
    file = folder / "train" / "bee" / "jpeg.JPEG"
    file.write_bytes(file.read_bytes()[:-100])
    return (str(file), "truncated")


def _write_synthetic(folder: Path) -> Written:
    names = [f"synthetic-train#{number}" for number in range(25)]
    return Written(tuple(f"class_{label}" for label in range(4)), [number % 4 for number in range(25)], [], names, None)


def _open_synthetic(folder: Path) -> Source:
    config = load(["data=synthetic", "data.num_train=25", "data.num_classes=4", "data.stored_size=12"])
    return build_source(config.data, "train", threads=1, progress=_quiet)


SOURCES = {
    "folder": Entry(_write_folder, _open_folder, _damage_folder),
    "synthetic": Entry(_write_synthetic, _open_synthetic, None),
    "beton": Entry(source_beton.write, source_beton.open_, source_beton.damage, outlives_deletion=True),
    "tar": Entry(source_tar.write_folders, source_tar.open_, source_tar.damage, outlives_deletion=True),
    "imagenet_tar": Entry(source_tar.write_class_tars, source_tar.open_, source_tar.damage, outlives_deletion=True),
    "parquet": Entry(source_parquet.write, source_parquet.open_, source_parquet.damage, outlives_deletion=True),
    "webdataset": Entry(source_tar.write_shards, source_tar.open_, source_tar.damage, outlives_deletion=True),
}


def digest(encoded: Encoded) -> str:
    """Hash one image as it is stored."""
    data = encoded.data.tobytes() if isinstance(encoded.data, np.ndarray) else bytes(encoded.data)
    return hashlib.sha256(repr((encoded.kind, encoded.width, encoded.height)).encode() + data).hexdigest()


def digests(source: Source) -> list[str]:
    """Hash every image."""
    return [digest(source.read(index)) for index in range(len(source))]


def digests_of(name: str, folder: Path) -> list[str]:
    """Open a source and hash every image (in a process of its own)."""
    return digests(SOURCES[name].open(folder))
