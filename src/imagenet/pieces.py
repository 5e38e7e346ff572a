"""The words that those who find images (layouts) and those who write them (the stages of a preparation) share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

Split = Literal["train", "val", "test"]
MOST_BYTES = 64 * 2**20  # of one image, or of one file of labels: ImageNet's largest image has 16 MB; more is an attack or damage


class Piece(NamedTuple):
    """One file that a source hands out.

    Attributes:
        place: the split it goes to, or "side" for a file that only tells labels (an xml, a csv, a list of names).
        folder: its class folder; "" where only the arrangement knows it (flat validation images) or none exists (test, side).
        name: its file name in the target (no slash, no leading dot); of a side file the path below the side folder.
        content: its bytes, or the file of the source that holds them, to be linked or copied.
    """

    place: Split | Literal["side"]
    folder: str
    name: str
    content: bytes | Path


class Unit(Protocol):
    """A part of a source that is extracted by one thread, in order: an inner tar, a shard, a class folder, a whole tar.gz.

    Attributes:
        name: the same at every start: the journal keeps it. "ILSVRC2012_img_train.tar/n01440764.tar"
        files: how many pieces there are at most, an estimate where only reading tells.
        bytes: of all pieces' contents, an estimate where only reading tells.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def files(self) -> int: ...  # noqa: D102
    @property
    def bytes(self) -> int: ...  # noqa: D102

    def pieces(self, start: int) -> Iterator[Piece]:
        """Yield pieces in a fixed order, from number `start` on; those before it are skipped as cheaply as can be.

        Raises:
            DataError: damaged or hostile; names the archive, the member, the reason and what to do.
            OSError: it cannot be read.
        """


class Archive(NamedTuple):
    """A file that units are read from, whose sum may be known.

    Attributes:
        path: of the file.
        md5: the published sum, in hex; None where there is none.
        bytes: the published size; None where there is none.
    """

    path: Path
    md5: str | None
    bytes: int | None


Labels = Mapping[str, str]  # stem of a flat validation image's file name to its class folder


class Found(NamedTuple):
    """What a layout's recogniser found in a source. Made without reading more than names, headers and label files.

    Attributes:
        layout: its name, a LayoutName but auto.
        units: in the order of their bytes in the source.
        archives: whose sums are checked while they are read.
        stamp: JSON-able, tells one state of the source from another (paths, sizes, mtimes): only with the same does a start go on.
        labels: called in the arrangement with the folder of side files; the class of every flat validation image.
        words: called likewise; class folder to English name(s), empty where the source tells none.
        listed: called likewise; "train/n01440764/n01440764_10026.JPEG" of all files that the source's own lists name
            (ImageSets), None where it has no lists. Extensions as in the target.
        notes: for the plan's printout, such as "labels come from LOC_val_solution.csv".
        train_counts: called in the arrangement; class folder to how many training images it has by the source's own table (the
            devkit's), empty where that does not tell. None where the source has no such table.
    """

    layout: str
    units: Sequence[Unit]
    archives: Sequence[Archive]
    stamp: object
    labels: Callable[[Path], Labels]
    words: Callable[[Path], Mapping[str, str]]
    listed: Callable[[Path], frozenset[str] | None]
    notes: Sequence[str]
    train_counts: Callable[[], Mapping[str, int]] | None = None
