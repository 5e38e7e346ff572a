"""The archives of ILSVRC2012 as image-net.org publishes them: names, sizes, md5 sums.

Sums: as the site shows them to who is logged in; those of train, val and devkit stand in torchvision's `datasets/imagenet.py`, too,
that of test in many projects' guides.
Sizes of train and val: CompVis/taming-transformers, `taming/data/imagenet.py`. Of the devkit and the test archive none was found.
"""

from typing import NamedTuple

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
TEST_TARS = ("ILSVRC2012_img_test_v10102019.tar", "ILSVRC2012_img_test.tar")
DEVKIT_TAR = "ILSVRC2012_devkit_t12.tar.gz"
WHERE = "https://image-net.org/download-images (free account, terms to accept)"


class Published(NamedTuple):
    """What is known of an archive.

    Attributes:
        md5: in hex.
        bytes: None where the size is not known.
    """

    md5: str
    bytes: int | None


PUBLISHED = {
    TRAIN_TAR: Published("1d675b47d978889d74fa0da5fadfb00e", 147_897_477_120),
    VAL_TAR: Published("29b22e2961454d5413ddabcf34fc5622", 6_744_924_160),
    "ILSVRC2012_img_test_v10102019.tar": Published("e1b8681fff3d63731c599df9b4b6fc02", None),
    DEVKIT_TAR: Published("fa75699e90414af021442c21a62c3abf", None),
}
