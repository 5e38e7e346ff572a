"""How many training images each class has by the source's own table, in `<target>/.prepare/train_counts.tsv`.

A line a class, `folder<TAB>images`.
The development kit's meta.mat tells it (num_train_images). A verification names by it the classes that lack images.
"""

from collections.abc import Mapping
from pathlib import Path

from src.batch import DataError
from src.files import write_atomically
from src.imagenet.manifest import FOLDER

_NAME = "train_counts.tsv"


def write_train_counts(target: Path, counts: Mapping[str, int]) -> None:
    """Write the list, atomically; where the source tells nothing, delete what an earlier source told.

    Raises:
        OSError: it cannot be written.
    """
    path = target / FOLDER / _NAME
    if not counts:
        path.unlink(missing_ok=True)
        return
    lines = "".join(f"{folder}\t{count}\n" for folder, count in sorted(counts.items()))
    write_atomically(path, lines.encode())


def read_train_counts(target: Path) -> dict[str, int] | None:
    """Read the list; None where there is none.

    Raises:
        DataError: it is not what write_train_counts writes; names the line.
        OSError: it cannot be read.
    """
    path = target / FOLDER / _NAME
    try:
        lines = path.read_bytes().decode("utf-8", "surrogateescape").splitlines()
    except FileNotFoundError:
        return None
    counts: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        folder, _, count = line.partition("\t")
        if not folder or folder in counts or not (count.isascii() and count.isdigit() and len(count) < 10):
            raise DataError(f"{path}, line {number}: {line[:80]!r} is not a class folder and its number of images.")
        counts[folder] = int(count)
    return counts
