"""A folder that appears whole or not at all: made beside its place under another name, then renamed.

A process that is killed meanwhile leaves the other name behind; the next export to the same place deletes it.
"""

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loguru import logger

from src.config import ConfigError, Problem
from src.files import TEMPORARY_PREFIX, sync_folder
from src.model_folder import is_model_folder

STAGE = "the target"
_AT_FDCWD, _EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def require_free(target: Path, *, overwrite: bool) -> None:
    """Refuse a target that holds something, before any work is done.

    Raises:
        ConfigError: it exists and overwrite is false, or it is no folder of src.export, which overwrite is for.
    """
    try:
        taken = target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir())))
    except OSError as error:
        fix = f"cannot be looked into ({error.strerror}). Set target= to another place."
        raise ConfigError(STAGE, [Problem("target", str(target), fix)]) from error
    if not taken:
        return
    if not overwrite:
        fix = "exists already. Add overwrite=true to replace it, or set target= to another place."
        raise ConfigError(STAGE, [Problem("target", str(target), fix)])
    if target.is_symlink() or not is_model_folder(target):
        fix = "is no folder of src.export, and is not deleted. Set target= to another place."
        raise ConfigError(STAGE, [Problem("target", str(target), fix)])


@contextmanager
def new_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give an empty folder; at the end its files are made to last and it takes the target's place, in one step.

    Args:
        target: where it shall stand.
        overwrite: whether it may replace an earlier export.

    Raises:
        ConfigError: the target is taken, or its place cannot be written.
    """
    require_free(target, overwrite=overwrite)
    prefix = f"{TEMPORARY_PREFIX}{target.name}-"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent, prefix)
        made = Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix))
    except OSError as error:
        fix = f"cannot be made ({error.strerror}: {error.filename}). Set target= to a place that can be written."
        raise ConfigError(STAGE, [Problem("target", str(target), fix)]) from error
    held = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(held)
        made.chmod(0o777 & ~_umask())
        yield made
        _make_last(made)
        require_free(target, overwrite=overwrite)  # it may have appeared meanwhile
        _put_in_place(made, target)
    finally:
        os.close(held)
        shutil.rmtree(made, ignore_errors=True)  # gone, unless something failed, or it is what was replaced


def remove_leftovers(parent: Path, prefix: str) -> None:
    """Delete what processes that died left. One that is alive holds a lock on its folder."""
    for leftover in parent.glob(f"{prefix}*"):
        if not leftover.is_dir() or leftover.is_symlink():
            continue
        held = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if _lock(held):
                logger.info(f"{leftover} is what an interrupted export left: deleted")
                shutil.rmtree(leftover, ignore_errors=True)
        finally:
            os.close(held)


def _put_in_place(made: Path, target: Path) -> None:
    if target.exists() and any(target.iterdir()):
        _exchange(made, target)  # the earlier export now stands under the temporary name
    else:
        made.rename(target)
    sync_folder(target.parent)


def _exchange(made: Path, target: Path) -> None:
    """Swap two folders' names in one step; where the file system cannot, in two."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is not None and call(_AT_FDCWD, os.fsencode(made), _AT_FDCWD, os.fsencode(target), _EXCHANGE) == 0:
        return
    code = ctypes.get_errno()
    if call is not None and code not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(code, os.strerror(code), str(target))
    aside = made.with_name(f"{made.name}-replaced")
    target.rename(aside)
    made.rename(target)
    shutil.rmtree(aside, ignore_errors=True)


def _make_last(folder: Path) -> None:
    for file in folder.rglob("*"):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)


def _lock(descriptor: int) -> bool:
    """Hold a folder; false where somebody else does, or the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
