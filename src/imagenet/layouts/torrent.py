"""Academic Torrents' `ILSVRC2017_CLS-LOC.tar.gz` (155 GB), read from front to back once, never unpacked elsewhere; or as tar.

The extracted tree is layouts/kaggle.py's.
"""

import re
from pathlib import Path

from src.config import ConfigError, Problem
from src.config.prepare import PrepareConfig
from src.imagenet.labels import kaggle as labels
from src.imagenet.layouts.one_archive import STAGE, archives_at, the_archive
from src.imagenet.names import IMAGE_BYTES
from src.imagenet.pieces import Archive, Found
from src.imagenet.streams.tar_stream import GZIP, FileTar

_NAME = re.compile(r"(?:ILSVRC\d{4}_CLS-LOC|imagenet_object_localization\w*)\.(?:tar\.gz|tgz|tar)", re.ASCII)
_SIDE_FILES = 50_000 + 5  # annotations of validation images, and lists
_IMAGES = 1_281_167 + 50_000 + 100_000


def looks_like(source: Path) -> bool:
    """Tell by names alone whether this may be it, or the folder that holds it."""
    return next(archives_at(source, _NAME), None) is not None


def find(source: Path, config: PrepareConfig) -> Found:
    """Find the one archive.

    Raises:
        ConfigError: it is not there, there are several, or it cannot be read.
    """
    path = the_archive(source, _NAME, "ILSVRC2017_CLS-LOC.tar.gz")
    try:
        state = path.stat()
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise ConfigError(STAGE, [Problem("source", str(path), f"cannot be read: {error.strerror}.")]) from error
    if not head.startswith(GZIP) and head[257:262] != b"ustar":
        fix = f"is neither gzip nor tar ({state.st_size:,} bytes). Fetch it again."
        raise ConfigError(STAGE, [Problem("source", str(path), fix)])
    files = min(_IMAGES, state.st_size // IMAGE_BYTES * 2 + 1_000) + _SIDE_FILES
    return Found(
        layout="torrent",
        units=[FileTar(path, path.name, files, state.st_size)],
        archives=[Archive(path, None, None)],
        stamp=[str(path.resolve()), state.st_size, state.st_mtime_ns],
        labels=labels.labels,
        words=labels.words,
        listed=labels.listed,
        notes=["one pass over the whole archive; the validation classes come from its LOC_val_solution.csv or Annotations"],
    )
