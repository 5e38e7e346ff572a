"""Where Fashion-MNIST's files come from: Debian's package, torchvision's download, or that package unpacked without root."""

import shutil
import socket
import subprocess
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

from loguru import logger

from src.config import ConfigError, Problem

PACKAGE = "dataset-fashion-mnist"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")
_SILENCE_SECONDS = 10  # of a server, for each of its addresses


def find_files(names: Sequence[str], scratch: Path, *, installed: Path = INSTALLED) -> Path:
    """Return a folder that holds all the files.

    Args:
        names: of the files.
        scratch: an empty folder, for what is downloaded. Nothing is written elsewhere, and nothing installed.
        installed: where Debian's package puts them.

    Raises:
        ConfigError: they cannot be had. It says what to type.
    """
    reasons = []
    for attempt in (_take_installed, _download, _unpack):
        try:
            folder = attempt(installed, scratch)
            lacking = missing_files(names, folder)
            if not lacking:
                logger.info(f"reading Fashion-MNIST from {folder}")
                return folder
            reasons.append(f"{folder} lacks {', '.join(lacking)}")
        except LookupError as error:
            reasons.append(str(error.args[0]))
    fix = (
        f"was not found ({'; '.join(reasons)}). On Debian or Ubuntu: sudo apt-get update && sudo apt-get install {PACKAGE}. "
        f"Elsewhere: put {', '.join(names)} into a folder and add source=<folder>."
    )
    raise ConfigError("the data set", [Problem("fashion_mnist", None, fix)])


def missing_files(names: Sequence[str], folder: Path) -> list[str]:
    """List the files that are not in the folder."""
    return [name for name in names if not (folder / name).is_file()]


def _take_installed(installed: Path, scratch: Path) -> Path:
    if not installed.is_dir():
        raise LookupError(f"the package {PACKAGE} is not installed")
    return installed


def _download(installed: Path, scratch: Path) -> Path:
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENCE_SECONDS)  # torchvision sets none: a dead mirror would hold it for ever
    try:
        from torchvision.datasets import FashionMNIST

        logger.info("downloading Fashion-MNIST with torchvision")
        FashionMNIST(scratch, download=True)
    except (ImportError, RuntimeError, OSError, HTTPException) as error:
        raise LookupError(f"torchvision's download failed: {_last_line(str(error))}") from error
    finally:
        socket.setdefaulttimeout(patience)
    return scratch / "FashionMNIST" / "raw"


def _unpack(installed: Path, scratch: Path) -> Path:
    absent = [program for program in ("apt-get", "dpkg-deb") if shutil.which(program) is None]
    if absent:
        raise LookupError(f"this system has no {' and no '.join(absent)}")
    logger.info(f"downloading Debian's package {PACKAGE}, without installing it")
    _run(["apt-get", "-o", f"Acquire::http::Timeout={_SILENCE_SECONDS}", "download", PACKAGE], scratch)
    package = next(scratch.glob(f"{PACKAGE}_*.deb"), None)
    if package is None:
        raise LookupError(f"apt-get download left no {PACKAGE}_*.deb")
    _run(["dpkg-deb", "-x", package.name, "unpacked"], scratch)
    return scratch / "unpacked" / INSTALLED.relative_to("/")


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LookupError(f"{command[0]} failed: {_last_line(done.stderr) or f'exit code {done.returncode}'}")


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2].strip()
