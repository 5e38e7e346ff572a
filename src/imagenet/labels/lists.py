"""The classes of validation images from a list that somebody made. Its numbers, where it has numbers, are a trap.

Lists there are:

    ILSVRC2012_val_00000001.JPEG n01751748      a wnid beside each name
    n01751748                                   a wnid a line, in the order of the images (synset_labels.txt)
    ILSVRC2012_val_00000001.JPEG 65             a number beside each name: the rank of the wnid from 0 (val.txt of Caffe),
    490                                         or ILSVRC2012_ID of the devkit, from 1 and in an order of its own

A number is believed only where it is known what it counts: by a training list beside it, and by the classes of the first ten
validation images, which are public knowledge. Else the list is refused.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from src.batch import DataError
from src.imagenet.labels.tables import SOLUTION, read_solution, read_text
from src.imagenet.names import WNID
from src.imagenet.wnids import imagenet_wnids

# Ranks of the first ten images' classes: how val.txt in Caffe's caffe_ilsvrc12.tar.gz (BVLC) begins, as many pages quote it.
_FIRST = (65, 970, 230, 809, 516, 57, 334, 415, 674, 332)
_ENOUGH = 3  # of them must be there and agree
_NAMED = re.compile(r"(?:.*/)?(ILSVRC2012_val_\d{8})(?:\.[A-Za-z]+)?[\s,;]+(n\d{8}|\d{1,4})", re.ASCII)
_TRAINED = re.compile(r"(?:.*/)?(n\d{8})_\d+(?:\.[A-Za-z]+)?[\s,;]+(\d{1,4})", re.ASCII)
_NUMBER = re.compile(r"\d{1,4}", re.ASCII)
_LONGEST_LINE = 1_000  # bytes
_DEVKIT = "Give the devkit (ILSVRC2012_devkit_t12.tar.gz), or a list with wnids such as n01440764"


class LabelList(NamedTuple):
    """A list of labels, as it stands.

    Attributes:
        path: of the file.
        told: stem of the image to what stands beside it: a wnid, or a number.
    """

    path: Path
    told: Mapping[str, str]

    @property
    def numbered(self) -> bool:
        """Whether it tells classes by numbers."""
        return not all(WNID.fullmatch(told) for told in self.told.values())


def find_lists(folders: Sequence[Path]) -> tuple[list[LabelList], list[Path]]:
    """Read all lists of validation classes that lie in these folders.

    Returns:
        The lists, and files that are lists of training images with numbers.

    Raises:
        DataError: a list changes its kind in the middle; names file and line.
        OSError: a file cannot be read.
    """
    lists: list[LabelList] = []
    trained: list[Path] = []
    for folder in folders:
        names = (name for name in os.listdir(folder) if name.lower().endswith((".txt", ".csv")) and name[0] != ".")
        for path in (folder / name for name in sorted(names)):
            if not path.is_file():
                continue
            first = _first_line(path)
            if _TRAINED.fullmatch(first):
                trained.append(path)
            elif (found := _read(path, first)) is not None:
                lists.append(found)
    return lists, trained


def numbers_from(trained: Sequence[Path]) -> dict[int, str]:
    """Return number to wnid, as lists of training images use numbers; empty where these are not one to one with wnids.

    Raises:
        OSError: a file cannot be read.
    """
    numbers: dict[int, str] = {}
    wnids: dict[str, int] = {}
    for path in trained:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                match = _TRAINED.fullmatch(line.strip())
                number = int(match[2]) if match is not None else -1
                if (
                    match is None
                    or numbers.setdefault(number, match[1]) != match[1]
                    or wnids.setdefault(match[1], number) != number
                ):
                    return {}
    return numbers


def labels_from(found: LabelList, classes: Sequence[str], numbers: Mapping[int, str]) -> dict[str, str]:
    """Translate a list into wnids.

    Args:
        found: the list.
        classes: of the training images.
        numbers: what a training list tells of them.

    Raises:
        DataError: its numbers could be ranks or something else, or it contradicts what is known of the first images.
    """
    if not found.numbered:
        wrong = _contradiction(found.told, classes)
        if wrong is not None:
            raise DataError(f"{found.path} {wrong}: its classes are not those of ILSVRC2012's validation images. {_DEVKIT}.")
        return dict(found.told)
    mixed = next((stem for stem, told in found.told.items() if WNID.fullmatch(told)), None)
    if mixed is not None:
        raise DataError(f"{found.path} gives {mixed} a wnid and others a number. {_DEVKIT}.")
    for read in _readings(classes, numbers):
        labels = {stem: read.get(int(told), "") for stem, told in found.told.items()}
        if all(labels.values()) and _contradiction(labels, classes) is None and _agreeing(labels) >= (1 if numbers else _ENOUGH):
            return labels
    raise DataError(
        f"{found.path} gives validation images numbers, and what they count cannot be known: ranks of wnids and the devkit's "
        f"ILSVRC2012_ID are different orders, and the first ten images fit no rank. {_DEVKIT}."
    )


def _readings(classes: Sequence[str], numbers: Mapping[int, str]) -> list[Mapping[int, str]]:
    """Return what numbers may mean: by a training list, else ranks from 0 or 1, of the classes here or of all thousand."""
    if numbers:
        return [numbers]
    orders = [sorted(classes), imagenet_wnids()]
    return [dict(enumerate(order, first)) for order in orders for first in (0, 1)]


def _known() -> dict[str, str]:
    wnids = imagenet_wnids()
    return {f"ILSVRC2012_val_{number:08d}": wnids[label] for number, label in enumerate(_FIRST, 1)}


def _contradiction(labels: Mapping[str, str], classes: Sequence[str]) -> str | None:
    here = set(classes)
    for stem, wnid in _known().items():
        if wnid in here and labels.get(stem, wnid) != wnid:
            return f"says that {stem} is of class {labels[stem]}, and it is of {wnid}"
    return None


def _agreeing(labels: Mapping[str, str]) -> int:
    return sum(labels.get(stem) == wnid for stem, wnid in _known().items())


def _first_line(path: Path) -> str:
    with open(path, "rb") as file:
        return file.readline(_LONGEST_LINE).decode("utf-8-sig", "replace").strip()


def _read(path: Path, first: str) -> LabelList | None:
    """Read a file where it is a list of validation classes, by its first line."""
    if path.name == SOLUTION:
        return LabelList(path, read_solution(path))
    if not (_NAMED.fullmatch(first) or WNID.fullmatch(first) or first.isdigit()):
        return None
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    if _NAMED.fullmatch(first):
        return LabelList(path, _named(path, lines))
    words = [line.strip() for line in lines]
    kind = WNID if first[0] == "n" else _NUMBER
    if not all(kind.fullmatch(word) for word in words) or len(set(words)) == len(words):
        return None  # a list of the classes themselves, or of something else
    return LabelList(path, {f"ILSVRC2012_val_{number:08d}": word for number, word in enumerate(words, 1)})


def _named(path: Path, lines: Sequence[str]) -> dict[str, str]:
    told: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _NAMED.fullmatch(line.strip())
        if match is None:
            raise DataError(
                f"{path}, line {number}: {line[:80]!r} is no validation image with its class, as line 1 is. Get it again."
            )
        if told.setdefault(match[1], match[2]) != match[2]:
            raise DataError(f"{path}, line {number}: {match[1]} is of two classes, {told[match[1]]} and {match[2]}. Get it again.")
    return told
