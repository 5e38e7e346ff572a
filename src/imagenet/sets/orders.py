"""What a bare name on the command line means: where a data set goes, where it is looked for, and where it is downloaded from."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from loguru import logger

from src.config import ConfigError, Problem
from src.imagenet.layouts import cifar10, imagenette
from src.imagenet.sets.download import Published, download

STAGE = "the data set"


class Order(NamedTuple):
    """What `python -m src.prepare <name>` does without more.

    Attributes:
        name: of the data set, and of its layout.
        target: its default.
        beside: files or folders that are taken where they lie in the target's parent folder; the first that is there.
        file: what is downloaded else.
    """

    name: str
    target: str
    beside: tuple[str, ...]
    file: Published


_ORDERS = {
    "cifar10": Order(
        "cifar10",
        "data/cifar10",
        ("cifar-10-binary.tar.gz", "cifar-10-batches-bin", "cifar-10-python.tar.gz", "cifar-10-batches-py"),
        Published(
            ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz"),
            *cifar10.PUBLISHED["binary"],
        ),
    ),
    "imagenette": Order(
        "imagenette",
        "data/imagenette",
        ("imagenette2-160.tgz", "imagenette2-160", "imagenette2-320.tgz", "imagenette2-320", "imagenette2.tgz", "imagenette2"),
        Published(
            ("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",), *imagenette.PUBLISHED["imagenette2-160.tgz"]
        ),
    ),
}


def default_order(name: str) -> Order:
    """Return what a data set's bare name means.

    Args:
        name: "cifar10" or "imagenette".
    """
    return _ORDERS[name]


def default_source(order: Order, target: Path, downloads: Path, progress: Callable[[int, int], None]) -> Path:
    """Find the data set beside the target, or download it.

    Args:
        order: which.
        target: where it will be written.
        downloads: a folder for what is downloaded, below the target; what an earlier attempt left there is gone on with.
        progress: called with bytes (done, total) of the download.

    Raises:
        ConfigError: it cannot be had; says what to type.
        OSError: the folder cannot be written.
    """
    for name in order.beside:
        path = target.absolute().parent / name
        if path.exists():
            logger.info(f"reading {order.name} from {path}")
            return path
    logger.info(f"downloading {order.file.urls[0]} ({order.file.bytes / 1e6:,.0f} MB)")
    try:
        return download(order.file, downloads, progress)
    except LookupError as error:
        fix = (
            f"was not found in {target.absolute().parent}, and cannot be downloaded ({error.args[0]}). "
            f"Download {order.file.urls[0]} where there is a network (md5 {order.file.md5}), bring it here, and add source=<that file>."
        )
        raise ConfigError(STAGE, [Problem(order.name, None, fix)]) from error
