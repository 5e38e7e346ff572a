"""What the tree of Kaggle and Academic Torrents tells about itself: of a folder `root` that holds ILSVRC/ and Kaggle's tables.

root/LOC_val_solution.csv, root/LOC_synset_mapping.txt
root/ILSVRC/Annotations/CLS-LOC/val/*.xml
root/ILSVRC/ImageSets/CLS-LOC/{train_cls,val,test}.txt
"""

from collections.abc import Iterator
from pathlib import Path

from src.batch import DataError
from src.imagenet.labels.annotations import read_annotations
from src.imagenet.labels.tables import MAPPING, SOLUTION, check_classes, read_mapping, read_solution, read_text
from src.imagenet.pieces import Labels

ANNOTATIONS, LISTS = "ILSVRC/Annotations/CLS-LOC/val", "ILSVRC/ImageSets/CLS-LOC"


def labels(root: Path) -> Labels:
    """Return the class of every flat validation image: by the csv where there is one, else by the annotations.

    Raises:
        DataError: a file is damaged, two disagree, or there is neither.
        OSError: one cannot be read.
    """
    table = root / SOLUTION
    if table.is_file():
        found = read_solution(table)
        check_classes(found, words(root), table)
        return found
    if (root / ANNOTATIONS).is_dir():
        return read_annotations(root / ANNOTATIONS)
    raise DataError(f"Nothing tells the classes of the validation images: neither {SOLUTION} nor {ANNOTATIONS}/*.xml is there.")


def words(root: Path) -> dict[str, str]:
    """Return wnid to English names; empty without Kaggle's table.

    Raises:
        DataError: it is damaged.
        OSError: it cannot be read.
    """
    return read_mapping(root / MAPPING) if (root / MAPPING).is_file() else {}


def listed(root: Path) -> frozenset[str] | None:
    """Return the paths in the target of all images that the lists name; None without lists.

    Raises:
        DataError: a list is damaged, or names a validation image without a class.
        OSError: one cannot be read.
    """
    lists = root / LISTS
    if not (lists / "train_cls.txt").is_file():
        return None
    return frozenset(_listed(root, lists))


def _listed(root: Path, lists: Path) -> Iterator[str]:
    for stem in _stems(lists / "train_cls.txt"):
        yield f"train/{stem}.JPEG"
    if (lists / "val.txt").is_file():
        classes = labels(root)
        for stem in _stems(lists / "val.txt"):
            if stem not in classes:
                raise DataError(f"{lists / 'val.txt'} names {stem[:80]}, and nothing tells its class.")
            yield f"val/{classes[stem]}/{stem}.JPEG"
    if (lists / "test.txt").is_file():
        for stem in _stems(lists / "test.txt"):
            yield f"test/{stem}.JPEG"


def _stems(path: Path) -> Iterator[str]:
    """Yield the first word of each line; the second is a running number."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if len(words) != 2 or not words[1].isdigit():
            raise DataError(f"{path}, line {number}: {line[:80]!r} is no image with its number. Get it again.")
        yield words[0]
