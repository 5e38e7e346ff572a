"""`classes.tsv`: which label is which folder, and what it is called. One line a class, `label<TAB>folder<TAB>English names`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from src.batch import DataError
from src.files import write_atomically
from src.imagenet.wnids import imagenet_words

CLASSES_FILE = "classes.tsv"


class Classes(NamedTuple):
    """The classes of a data set, by label.

    Attributes:
        folders: sorted; a label is a position in them.
        words: English names for people, "" where none is known. They are not unique: nothing is ever looked up by them.
    """

    folders: tuple[str, ...]
    words: tuple[str, ...]


def write_classes(path: Path, folders: Iterable[str], words: Mapping[str, str]) -> None:
    """Write the list, atomically. It depends on the folders alone where they are ImageNet's: whatever the source calls them.

    Args:
        path: of the file.
        folders: of the classes, in any order, each once.
        words: folder to names, of classes that are not ImageNet's.

    Raises:
        OSError: it cannot be written.
    """
    ordered = sorted(folders)
    assert len(set(ordered)) == len(ordered)
    known = imagenet_words()
    lines = (
        f"{label}\t{folder}\t{_one_line(known.get(folder) or words.get(folder, ''))}\n" for label, folder in enumerate(ordered)
    )
    write_atomically(path, "".join(lines).encode("utf-8", "surrogateescape"))


def read_classes(path: Path) -> Classes:
    """Read the list.

    Raises:
        DataError: it is not what write_classes writes; names the line.
        OSError: it cannot be read.
    """
    folders: list[str] = []
    words: list[str] = []
    for number, line in enumerate(path.read_bytes().decode("utf-8", "surrogateescape").split("\n")[:-1]):
        label, first, rest = line.partition("\t")
        folder, second, names = rest.partition("\t")
        if label != str(number) or not folder or not first or not second or (folders and folder <= folders[-1]):
            raise DataError(f"{path}, line {number + 1}: {line[:80]!r} is not the class with label {number}, sorted by folder.")
        folders.append(folder)
        words.append(names)
    return Classes(tuple(folders), tuple(words))


def order_warning(folders: Iterable[str]) -> str | None:
    """Say in which order classes named by numbers are labelled (1, 10, 2); None where it is the numbers' own order, or none are."""
    ordered = sorted(folders)
    if not ordered or not all(name.isascii() and name.isdigit() for name in ordered) or ordered == sorted(ordered, key=int):
        return None
    shown = ", ".join(f"{name} is label {label}" for label, name in list(enumerate(ordered))[:3])
    return (
        f"the class folders are numbers, and sort as text, not as numbers: {shown}, ... Models and predictions count so. "
        f"Rename the folders to equal lengths ({ordered[0]} to {ordered[0].zfill(len(max(ordered, key=len)))}) for the other."
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
