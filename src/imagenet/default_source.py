"""What a bare name on the command line means: where a data set goes, where it is looked for, and where it is downloaded from."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from loguru import logger

from src.config import ConfigError, Problem
from src.imagenet.layouts import cifar10, imagenette
from src.imagenet.manifest import FOLDER
from src.imagenet.sets.download import Published, download

STAGE = "the data set"


class Order(NamedTuple):
    """What `python -m src.prepare <name>` does without more.

    Attributes:
        beside: files or folders that are taken where they lie in the target's parent folder; the first that is there.
        file: what is downloaded else.
    """

    beside: tuple[str, ...]
    file: Published


ORDERS = {
    "cifar10": Order(
        ("cifar-10-binary.tar.gz", "cifar-10-batches-bin", "cifar-10-python.tar.gz", "cifar-10-batches-py"),
        Published(
            ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz"),
            *cifar10.PUBLISHED["binary"],
        ),
    ),
    "imagenette": Order(
        ("imagenette2-160.tgz", "imagenette2-160", "imagenette2-320.tgz", "imagenette2-320", "imagenette2.tgz", "imagenette2"),
        Published(
            ("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",), *imagenette.PUBLISHED["imagenette2-160.tgz"]
        ),
    ),
}


def beside(name: str, target: Path) -> Path | None:
    """Return the archive or folder of a data set that lies beside the target; None where none does."""
    folder = target.absolute().parent
    there = next((folder / candidate for candidate in ORDERS[name].beside if (folder / candidate).exists()), None)
    if there is not None:
        logger.info(f"reading {name} from {there}")
    return there


def downloaded(name: str, target: Path, progress: Callable[[int, int], None]) -> Path:
    """Download a data set into the target's folder for unfinished work.

    Args:
        name: of the data set.
        target: where it will be written.
        progress: called with bytes (done, total).

    Returns:
        The archive.

    Raises:
        ConfigError: it cannot be had; says what to type.
        OSError: the download cannot be written.
    """
    order, parent = ORDERS[name], target.absolute().parent
    logger.info(f"downloading {order.file.urls[0]} ({order.file.bytes / 1e6:,.0f} MB)")
    try:
        return download(order.file, downloads_of(target), progress)
    except LookupError as error:
        fix = (
            f"was not found in {parent}, and cannot be downloaded ({error.args[0]}). Download {order.file.urls[0]} "
            f"where there is a network (md5 {order.file.md5}), and add source=<that file>."
        )
        raise ConfigError(STAGE, [Problem(name, None, fix)]) from error


def downloads_of(target: Path) -> Path:
    """Return the folder for downloads: a killed one is gone on with at the next start."""
    return target / FOLDER / "downloads"
