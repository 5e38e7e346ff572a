"""A source made up of pieces in memory, and one extraction of it as the stages do it."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from src.imagenet.extract import Extraction
from src.imagenet.journal import Journal
from src.imagenet.pieces import Archive, Found, Piece, Unit
from src.imagenet.rows import Rows, remove_unknown
from src.imagenet.sums import ReadAhead
from src.imagenet.writing import Link, Writer


class MadeUp:
    """A unit of given pieces; an exception among them is raised in its turn."""

    def __init__(self, name: str, pieces: Sequence[Piece | Exception]) -> None:
        self.name, self._pieces = name, pieces
        self.files, self.bytes = len(pieces), sum(_size(piece) for piece in pieces)
        self.starts: list[int] = []
        self.begun = threading.Event()

    def pieces(self, start: int) -> Iterator[Piece]:
        """Yield them."""
        self.starts.append(start)
        self.begun.set()
        for piece in self._pieces[start:]:
            if isinstance(piece, Exception):
                raise piece
            yield piece


def _size(piece: Piece | Exception) -> int:
    return len(piece.content) if isinstance(piece, Piece) and isinstance(piece.content, bytes) else 0


def image(path: str, content: bytes | Path | None = None) -> Piece:
    """Make "train/n1/a.JPEG" a piece, with its own path as its bytes."""
    place, _, rest = path.partition("/")
    folder, _, name = rest.rpartition("/")
    return Piece(place, folder, name, path.encode() if content is None else content)  # type: ignore[arg-type]


def found(units: Sequence[Unit], *, archives: Sequence[Archive] = (), stamp: object = 1, **more: object) -> Found:
    """Make what a layout would."""
    given = {"labels": lambda side: {}, "words": lambda side: {}, "listed": lambda side: None, **more}
    return Found(layout="folders", units=units, archives=archives, stamp=stamp, notes=[], **given)  # type: ignore[arg-type]


def extract(
    target: Path, units: Sequence[Unit], *, threads: int = 2, link: Link = "auto", ahead: ReadAhead | None = None
) -> tuple[Journal, Rows]:
    """Extract what is not done, as a start would."""
    folder = target / ".prepare"
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal.resume(target) if (folder / "journal.jsonl").exists() else Journal.begin(target, key="k", source="s")
    rows = Rows(target, journal)
    rows.cut_back()
    remove_unknown(target, rows.sorted())
    if ahead is not None:
        ahead.start()
    try:
        Extraction(target, journal, rows, Writer(target, link), ahead).run(units, threads=threads, progress=lambda *amounts: None)
    finally:
        if ahead is not None:
            ahead.stop()
    return journal, rows


def tree(target: Path) -> dict[str, bytes]:
    """Return what stands below the tree: path to bytes."""
    root = target / ".prepare" / "tree"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
