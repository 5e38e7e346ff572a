"""Write files so that a crash leaves the old one whole."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

TEMPORARY_PREFIX = ".writing-"
_BUFFER_BYTES = 1 << 20


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Replace a file's content: temporary file in the same folder, flush, fsync, rename, fsync of the folder.

    Raises:
        OSError: the old content stands then (or the new, if only the last fsync failed), and no temporary file is left.
    """
    put_in_place(write_temporary(path.parent, lambda file: file.write(data)), path)


def write_temporary(folder: Path, write: Callable[[IO[bytes]], object]) -> Path:
    """Write a file that lasts (flush, fsync) under a temporary name, to be put in place later.

    Args:
        folder: where it will stay, for a rename cannot leave a file system.
        write: writes the content.

    Raises:
        OSError: or whatever `write` raises; no temporary file is left.
    """
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=TEMPORARY_PREFIX)
    temporary = Path(name)
    try:
        with open(descriptor, "wb", buffering=_BUFFER_BYTES) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o666 & ~_umask())
    except BaseException:
        discard(temporary)
        raise
    return temporary


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a temporary file its name, replacing what has it now: rename, fsync of the folder.

    Raises:
        OSError: the old content stands then (or the new, if only the last fsync failed), and no temporary file is left.
    """
    try:
        os.replace(temporary, path)
    except BaseException:
        discard(temporary)
        raise
    sync_folder(path.parent)


def discard(temporary: Path) -> None:
    """Delete a temporary file. What cannot be deleted now is at the next start, and hides no error."""
    with contextlib.suppress(OSError):
        os.unlink(temporary)


def link_atomically(source: Path, target: Path) -> None:
    """Give a file a second name, replacing what has it now; a copy where the file system has no hard links."""
    temporary = target.parent / f"{TEMPORARY_PREFIX}{target.name}-{os.getpid()}"
    discard(temporary)
    try:
        os.link(source, temporary)
    except OSError:
        write_atomically(target, source.read_bytes())
        return
    try:
        os.replace(temporary, target)
    finally:
        discard(temporary)  # renaming a file onto its own other name does nothing and leaves both
    sync_folder(target.parent)


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files of a process that died while writing. Never a reason to fail."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
