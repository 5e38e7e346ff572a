"""The tree that Kaggle and Academic Torrents hand out, by its members' paths: images, labels, what is passed over.

    [ILSVRC/]Data/CLS-LOC/train/n01440764/n01440764_10026.JPEG      an image with its class
    [ILSVRC/]Data/CLS-LOC/{val,test}/ILSVRC2012_val_00000293.JPEG   an image
    [ILSVRC/]Annotations/CLS-LOC/val/ILSVRC2012_val_00000293.xml    tells a class; those of train (500,000 files) tell nothing new
    [ILSVRC/]ImageSets/CLS-LOC/{train_cls,val,test}.txt             list what there should be
    LOC_val_solution.csv, LOC_synset_mapping.txt                    Kaggle's

The side folder is such a tree again, without the images.
"""

import re
from array import array
from typing import Literal, NamedTuple

import numpy as np

from src.batch import DataError
from src.imagenet.pieces import MOST_BYTES, Split

MOST_MEMBERS = 2**22  # Kaggle's zip has two million
MOST_XML = 2**20  # bytes of one image's annotation
# Numbers without leading zeros in train: then a path and its key below are the same thing.
_IMAGE = re.compile(
    r"(?:ILSVRC/)?Data/CLS-LOC/(?:train/n([0-9]{8})/n([0-9]{8})_(0|[1-9][0-9]{0,8})|(val|test)/ILSVRC2012_(val|test)_([0-9]{8}))\.JPEG"
)
_DATA = re.compile(r"(?:ILSVRC/)?Data/")
_XML = re.compile(r"(?:ILSVRC/)?(Annotations/CLS-LOC/val/ILSVRC2012_val_[0-9]{8}\.xml)")
_LIST = re.compile(r"(?:ILSVRC/)?(ImageSets/CLS-LOC/(?:train_cls|val|test)\.txt)")
_TABLE = re.compile(r"(?:[^/]+/)?(LOC_val_solution\.csv|LOC_synset_mapping\.txt)")
_SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Member(NamedTuple):
    """What a member is.

    Attributes:
        place: see Piece.
        folder: see Piece.
        name: see Piece.
        key: another for every image; see Seen. -1 of side files.
    """

    place: Split | Literal["side"]
    folder: str
    name: str
    key: int


def member_of(path: str, size: int) -> Member | None:
    """Tell what a member of the tree is; None where it is passed over.

    Raises:
        DataError: it is among the images and none, or larger than any; the caller names the archive.
    """
    match = _IMAGE.fullmatch(path)
    if match is not None:
        wnid, own, number, folder, split, place = match.groups()
        if wnid != own or folder != split:
            raise DataError(f"holds {path}, which by its name belongs elsewhere. {_ANEW}.")
        if not 0 < size <= MOST_BYTES:
            raise DataError(f"holds {path} of {size:,} bytes: that is no image. {_ANEW}.")
        if wnid is not None:
            return Member("train", f"n{wnid}", f"n{wnid}_{number}.JPEG", (int(wnid) << 30) + int(number))
        key = (_SPLITS.index(split) << 60) + int(place)
        return Member("val" if split == "val" else "test", "", f"ILSVRC2012_{split}_{place}.JPEG", key)
    if _DATA.match(path):
        raise DataError(f"holds {path[:300]!r}, which is no image of ILSVRC2012 by its name. {_ANEW}.")
    match = _XML.fullmatch(path) or _LIST.fullmatch(path)
    name = f"ILSVRC/{match[1]}" if match is not None else table[1] if (table := _TABLE.fullmatch(path)) else None
    if name is None:
        return None
    if size > (MOST_XML if name.endswith(".xml") else MOST_BYTES):
        raise DataError(f"holds {path} of {size:,} bytes: that is no file of labels. {_ANEW}.")
    return Member("side", "", name, -1)


_ANEW = "Fetch the archive again from where it is published"


class Seen:
    """The images met so far, in eight bytes each."""

    def __init__(self) -> None:
        self._keys = array("Q")
        self._sides: set[str] = set()

    def add(self, member: Member) -> None:
        """Note a member.

        Raises:
            DataError: more members than any such archive has, or a file of labels twice.
        """
        if member.place == "side":
            if member.name in self._sides:
                raise DataError(f"holds {member.name} twice. {_ANEW}.")
            self._sides.add(member.name)
        else:
            self._keys.append(member.key)
        if len(self._keys) + len(self._sides) > MOST_MEMBERS:
            raise DataError(f"holds more than {MOST_MEMBERS:,} images. {_ANEW}.")

    def check(self) -> None:
        """Look for images that were met twice.

        Raises:
            DataError: naming one.
        """
        keys = np.sort(np.frombuffer(self._keys, np.uint64))
        twice = np.flatnonzero(keys[1:] == keys[:-1])
        if len(twice):
            raise DataError(f"holds {_name(int(keys[twice[0]]))} twice. {_ANEW}.")


def _name(key: int) -> str:
    split = _SPLITS[key >> 60]
    if split != "train":
        return f"ILSVRC2012_{split}_{key & (2**60 - 1):08d}.JPEG"
    wnid = f"n{key >> 30:08d}"
    return f"{wnid}/{wnid}_{key & (2**30 - 1)}.JPEG"
