"""Kaggle's tables: LOC_val_solution.csv names the class of every validation image, LOC_synset_mapping.txt names the classes.

    ImageId,PredictionString
    ILSVRC2012_val_00048981,n03995372 85 1 499 272

The prediction string is a list of boxes, each a class and four numbers; all boxes of an image are of its one class.
"""

import csv
import itertools
from pathlib import Path

from src.batch import DataError
from src.imagenet.names import WNID
from src.imagenet.pieces import MOST_BYTES

SOLUTION, MAPPING = "LOC_val_solution.csv", "LOC_synset_mapping.txt"
_HEADER = ["ImageId", "PredictionString"]
_AGAIN = "Download it again"


def read_solution(path: Path) -> dict[str, str]:
    """Return stem of the validation image to wnid.

    Raises:
        DataError: a line that is not as above; names file, line and what it holds.
        OSError: it cannot be read.
    """
    rows = csv.reader(read_text(path).splitlines())
    header = next(rows, None)
    if header != _HEADER:
        raise DataError(f"{path} begins with {','.join(header or [])[:80]!r}, not with {','.join(_HEADER)}. {_AGAIN}.")
    labels: dict[str, str] = {}
    try:
        for row in rows:
            stem, told = (row[0], row[1].split()) if len(row) == 2 else ("", [])
            if not stem.startswith("ILSVRC2012_val_") or not told or len(told) % 5 or not WNID.fullmatch(told[0]):
                raise DataError(f"{path}, line {rows.line_num}: {','.join(row)[:80]!r} is no image with its class. {_AGAIN}.")
            other = next((wnid for wnid in told[5::5] if wnid != told[0]), None)
            if other is not None or labels.get(stem, told[0]) != told[0]:
                other = other if other is not None else labels[stem]
                raise DataError(f"{path}, line {rows.line_num}: {stem} is of two classes, {other} and {told[0]}. {_AGAIN}.")
            labels[stem] = told[0]
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: {error}. {_AGAIN}.") from error
    return labels


def read_mapping(path: Path) -> dict[str, str]:
    """Return wnid to English names, sorted by wnid.

    Raises:
        DataError: a line that is no wnid with its names; names file and line.
        OSError: it cannot be read.
    """
    words: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        wnid, _, names = line.partition(" ")
        if not WNID.fullmatch(wnid) or wnid in words:
            raise DataError(f"{path}, line {number}: {line[:80]!r} is no class with its names, or is there twice. {_AGAIN}.")
        words[wnid] = names.strip()
    if any(later < earlier for earlier, later in itertools.pairwise(words)):
        raise DataError(f"{path}: its classes are not in the order of their wnids, as those of the published file are. {_AGAIN}.")
    return words


def check_classes(labels: dict[str, str], words: dict[str, str], where: Path) -> None:
    """Compare the classes of images with the list of classes.

    Raises:
        DataError: an image is of a class that is not in the list; names it.
    """
    stranger = next((stem for stem, wnid in labels.items() if wnid not in words), None)
    if words and stranger is not None:
        raise DataError(f"{where}: {stranger} is of class {labels[stranger]}, which {MAPPING} does not name. {_AGAIN}: both files.")


def read_text(path: Path) -> str:
    """Read a file of labels.

    Raises:
        DataError: it is larger than any, or no text.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise DataError(f"{path} has more than {MOST_BYTES:,} bytes: that is no file of labels.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text (byte {error.start:,}). {_AGAIN}.") from error
