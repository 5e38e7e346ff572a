"""Fashion-MNIST as a layout: a folder with its four gzipped idx files. The t10k images become val."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from src.batch import DataError
from src.config import ConfigError, Problem
from src.config.prepare import PrepareConfig
from src.imagenet.fashion.fashion_mnist import CLASSES, SPLITS, Split
from src.imagenet.fashion.idx import read_idx
from src.imagenet.fashion.origins import missing_files
from src.imagenet.pieces import Archive, Found, Piece
from src.imagenet.sets.png import png_bytes

STAGE = "the source"
_PNG_BYTES = 600  # of one image, on average and about
WORDS = {name: name[2:].replace("_", " ") for name in CLASSES}


def looks_like(source: Path) -> bool:
    """Tell whether the folder holds some of the files."""
    return any((source / name).is_file() for name in _names(SPLITS))


def find(source: Path, config: PrepareConfig) -> Found:
    """Find the files. What is in them is compared with the published sums when they are read.

    Raises:
        ConfigError: some are missing.
    """
    return found_in(source, config, SPLITS)


def found_in(source: Path, config: PrepareConfig, splits: Sequence[Split]) -> Found:
    """Find the files of some splits.

    Raises:
        ConfigError: see find.
    """
    problems = []
    if config.val_fraction is not None:
        fix = "Fashion-MNIST has its validation split. Leave it out."
        problems.append(Problem("val_fraction", config.val_fraction, fix))
    lacking = missing_files(_names(splits), source)
    if lacking:
        fix = f"no {', '.join(lacking)} there. Name the folder that holds {', '.join(_names(splits))}."
        problems.append(Problem("source", str(source), fix))
    if problems:
        raise ConfigError(STAGE, problems)
    files = [source / name for name in _names(splits)]
    states = [(file, file.stat()) for file in files]
    return Found(
        layout="fashion_mnist",
        units=[_SplitUnit(source, split) for split in splits],
        archives=[Archive(file, None, None) for file in files],
        stamp=[[str(file.resolve()), state.st_size, state.st_mtime_ns] for file, state in states],
        labels=lambda side: {},
        words=lambda side: WORDS,
        listed=lambda side: None,
        notes=["the files' sums are checked uncompressed, as they are read"],
    )


class _SplitUnit(NamedTuple):
    """One split."""

    source: Path
    split: Split

    @property
    def name(self) -> str:
        """See Unit."""
        return f"{self.split.name}/{self.split.images.name}"  # the file's name tells whose bytes they are

    @property
    def files(self) -> int:
        """See Unit."""
        return self.split.images.shape[0]

    @property
    def bytes(self) -> int:
        """See Unit."""
        return self.files * _PNG_BYTES

    def pieces(self, start: int) -> Iterator[Piece]:
        """See Unit."""
        arrays = []
        for file in (self.split.images, self.split.labels):
            try:
                arrays.append(read_idx(self.source, file))
            except ValueError as error:
                raise DataError(f"{self.source / file.name} {error}. Replace it.") from None
        images, labels = arrays
        if labels.max() >= len(CLASSES):
            raise DataError(f"{self.source / self.split.labels.name} holds labels beyond 9. Replace it.")
        place = "train" if self.split.name == "train" else "val"
        for row in range(start, len(labels)):
            yield Piece(place, CLASSES[labels[row]], f"{row:05d}.png", png_bytes(images[row]))  # type: ignore[arg-type]


def _names(splits: Sequence[Split]) -> list[str]:
    return [file.name for split in splits for file in (split.images, split.labels)]
