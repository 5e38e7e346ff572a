"""A folder for unfinished work inside the folder that is being made: one process at a time, nothing left of a killed one."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from loguru import logger

_PREFIX = ".partial-"


@contextlib.contextmanager
def alone_in(target: Path) -> Iterator[None]:
    """Make the folder and hold its lock; wait for another process that does. A folder made here and left empty is removed.

    The kernel lets go of the lock when the process dies, however it dies.

    Raises:
        OSError: the folder cannot be made.
    """
    existed = target.is_dir()
    target.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info(f"another process is at work in {target}: waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:  # NFS locks no folders: then two at once are the user's care
            logger.warning(f"{target} cannot be locked ({error.strerror}): do not start this twice at the same time")
        yield
    finally:
        os.close(descriptor)
        if not existed:
            with contextlib.suppress(OSError):
                target.rmdir()


@contextlib.contextmanager
def partial_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that is gone afterwards, and first remove those of killed attempts. Call it within alone_in.

    Raises:
        OSError: the target cannot be written.
    """
    remove_leftovers(target)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=target))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(target: Path) -> None:
    """Delete what killed attempts left. Never a reason to fail: the data may be read-only by now."""
    for leftover in target.glob(f"{_PREFIX}*"):
        logger.info(f"removing {leftover}, left by an attempt that was killed")  # a disk mounted with `discard` takes minutes
        shutil.rmtree(leftover, ignore_errors=True)
