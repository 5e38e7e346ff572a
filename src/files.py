"""Write files so that a crash leaves the old one whole."""

import contextlib
import os
import tempfile
from pathlib import Path

TEMPORARY_PREFIX = ".writing-"


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Replace a file's content: temporary file in the same folder, flush, fsync, rename, fsync of the folder.

    Raises:
        OSError: the old content stands then (or the new, if only the last fsync failed), and no temporary file is left.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY_PREFIX)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def link_atomically(source: Path, target: Path) -> None:
    """Give a file a second name, replacing what has it now; a copy where the file system has no hard links."""
    temporary = target.parent / f"{TEMPORARY_PREFIX}{target.name}-{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    try:
        os.link(source, temporary)
    except OSError:
        write_atomically(target, source.read_bytes())
        return
    try:
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)  # renaming a file onto its own other name does nothing and leaves both
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
