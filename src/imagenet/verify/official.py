"""What ILSVRC2012 holds, for a set to be held against.

The sizes, and 732 to 1,300 training images a class, are those of the challenge's paper (Russakovsky et al. 2015, arXiv:1409.0575,
table 2). `official.tsv` has a line a class:
wnid, and the crc32 of the numbers of its 50 validation images (`b"%08d"` each, in order), computed from the list of their wnids
that TensorFlow's models carry (github.com/tensorflow/models, imagenet_2012_validation_synset_labels.txt, sha256
313fc3f23c864dde9183c9a368809065765dd1b657a6904fded44e3e46d34604), which is the development kit's ground truth by wnid.
"""

import functools
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

TRAIN_IMAGES, VAL_IMAGES, TEST_IMAGES = 1_281_167, 50_000, 100_000
TRAIN_A_CLASS = (732, 1300)
NUMBERED = {
    "val": re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG", re.ASCII),
    "test": re.compile(r"ILSVRC2012_test_(\d{8})\.JPEG", re.ASCII),
}
_FILE = Path(__file__).with_name("official.tsv")


class Truth(NamedTuple):
    """What a set is held against. Tests hold small ones against small truths.

    Attributes:
        train: images of the training split.
        train_a_class: the fewest and the most training images of a class.
        val: images of the validation split, named ILSVRC2012_val_00000001.JPEG and so on, as many of each class.
        val_sums: class folder to the checksum of its validation images' numbers. Its keys are the classes.
        test: images of the test split, named likewise.
    """

    train: int
    train_a_class: tuple[int, int]
    val: int
    val_sums: Mapping[str, int]
    test: int

    @property
    def val_a_class(self) -> int:
        """Return how many validation images each class has."""
        return self.val // len(self.val_sums)


@functools.cache
def ilsvrc2012() -> Truth:
    """Return what the whole data set holds."""
    lines = [line.split("\t") for line in _FILE.read_text(encoding="ascii").splitlines()]
    sums = {wnid: int(told, 16) for wnid, told in lines}
    return Truth(TRAIN_IMAGES, TRAIN_A_CLASS, VAL_IMAGES, sums, TEST_IMAGES)


def sum_of(numbers: Iterable[int]) -> int:
    """Return the checksum of a class's validation images' numbers, in whatever order they come."""
    return zlib.crc32(b"".join(b"%08d" % number for number in sorted(numbers)))
