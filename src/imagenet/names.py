"""How ILSVRC2012 names its classes, archives and images. What is named otherwise is refused, never guessed at."""

import re

WNID = re.compile(r"n\d{8}", re.ASCII)
CLASS_TAR = re.compile(r"(n\d{8})\.tar", re.ASCII)
TRAIN = re.compile(r"(n\d{8})_\d{1,9}\.JPEG", re.ASCII)
VAL = re.compile(r"ILSVRC2012_val_\d{8}\.JPEG", re.ASCII)
TEST = re.compile(r"ILSVRC2012_test_\d{8}\.JPEG", re.ASCII)
IMAGE_BYTES = 115_440  # of one training image on average: 147,897,477,120 bytes of tar hold 1,281,167


def stem(name: str) -> str:
    """Return a file's name without folders and extension: the key of labels."""
    return name.rpartition("/")[2].rpartition(".")[0]
