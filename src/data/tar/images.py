"""What the layouts of tars have in common: the files of all tars by columns, and a split made of some of them."""

from array import array
from collections.abc import Iterable
from typing import NamedTuple

from src.data.index import EXTENSIONS
from src.data.tar.walk import Listing

_SHOWN = 5


class Images:
    """The files of all tars, by columns.

    Attributes:
        names: paths within their tar.
        files: which tar each is in.
        starts: its first byte in that tar.
        lengths: its bytes.
        folders: paths of all folders that the tars tell of.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.files, self.starts, self.lengths = array("q"), array("q"), array("q")
        self.folders: list[str] = []

    def add(self, file: int, listing: Listing, prefix: str = "") -> None:
        """Append what one tar, or one tar within a tar, holds."""
        self.names += [prefix + name for name in listing.names] if prefix else listing.names
        self.folders += listing.folders
        self.files.extend([file] * len(listing.names))
        self.starts.extend(listing.starts)
        self.lengths.extend(listing.lengths)


class Arranged(NamedTuple):
    """A split.

    Attributes:
        classes: names; a label is a position in them.
        order: which files are its samples, first to last.
        labels: of the samples.
    """

    classes: tuple[str, ...]
    order: list[int]
    labels: list[int]


def is_image(name: str) -> bool:
    """Tell whether an ImageFolder would take it for an image: by its extension, and nothing hidden."""
    return name.lower().endswith(EXTENSIONS) and name[0] != "." and "/." not in name


def some(names: Iterable[str]) -> str:
    """List the first few names for a message."""
    shown = [name for _, name in zip(range(_SHOWN + 1), names, strict=False)]
    return ", ".join(shown[:_SHOWN]) + (", ..." if len(shown) > _SHOWN else "")
