"""Writes one piece: the last gate before the disk. Nothing passes it that could stand outside of the folders made here.

Files are made with O_EXCL and O_NOFOLLOW: neither a planted link nor an earlier file is ever written through.
"""

import errno
import os
import re
import stat
import threading
import zlib
from pathlib import Path
from typing import Literal

from src.batch import DataError
from src.config import ConfigError, Problem
from src.imagenet.manifest import FOLDER, LINKED, line_of
from src.imagenet.pieces import MOST_BYTES, Piece

STAGE = "the preparation"
# Of every written file, so that two preparations of one source are identical: 2012-01-01T00:00:00Z. Links keep the source's.
MODIFIED_NS = 1_325_376_000 * 10**9
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PART = re.compile(r"[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]*")
_MOST_NAME = 255  # bytes: NAME_MAX
_NOT_LINKED = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES, errno.ENOSYS)
Link = Literal["auto", "hard", "copy"]


class DuplicateError(Exception):
    """A path that was written before. Its only argument is the path below the tree."""


class Writer:
    """Writes pieces below `<target>/.prepare/{tree,side}`; used by many threads at once.

    Args:
        target: of the preparation.
        link: how files of the source are taken over.
    """

    def __init__(self, target: Path, link: Link) -> None:
        self._target, self._link = target, link
        self._root = os.fspath(target / FOLDER)
        self._made: dict[tuple[str, str], str] = {}
        self._making = threading.Lock()

    def write(self, piece: Piece) -> tuple[bytes, int]:
        """Write, link or copy it. Returns its row (path below the tree, size, crc32) and its size.

        Raises:
            DataError: its name, kind or size is not allowed.
            DuplicateError: its path was written before.
            ConfigError: its split stands in the target already, or it must be linked and cannot be.
            OSError: the disk's reason.
        """
        place, folder, name, content = piece
        path = self._folder(place, folder) + name
        if place != "side":
            check_part(name, "file")
            relative = f"{place}/{folder}/{name}" if folder else f"{place}/{name}"
        else:
            relative = f"side/{name}"
            self._make_side(name)
        try:
            size, crc = self._write(path, content) if isinstance(content, bytes) else self._take_over(path, content)
        except FileExistsError:
            raise DuplicateError(relative) from None
        return line_of(relative, size, crc), size

    def _write(self, path: str, content: bytes) -> tuple[int, int]:
        size = len(content)
        if size > MOST_BYTES:
            raise DataError(f"{Path(path).name} has {size:,} bytes, more than any image. It is not written.")
        descriptor = os.open(path, _FLAGS, 0o666)
        try:
            written = os.write(descriptor, content)
            while written < size:
                written += os.write(descriptor, memoryview(content)[written:])
            os.utime(descriptor, ns=(MODIFIED_NS, MODIFIED_NS))
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(descriptor)
        return size, zlib.crc32(content)

    def _take_over(self, path: str, source: Path) -> tuple[int, int]:
        origin = os.fspath(source)
        found = os.lstat(origin)
        if stat.S_ISLNK(found.st_mode):  # link(2) would link the link
            origin = os.path.realpath(origin)
            found = os.stat(origin)
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{source} is no plain file. Take it away.")
        if found.st_size > MOST_BYTES:
            raise DataError(f"{source} has {found.st_size:,} bytes, more than any image. Take it away.")
        if self._link != "copy":
            try:
                os.link(origin, path)
            except OSError as error:
                if error.errno not in _NOT_LINKED:
                    raise
                if self._link == "hard":
                    fix = f"{source} cannot be linked to {self._target} ({error.strerror}). Type link=auto or link=copy."
                    raise ConfigError(STAGE, [Problem("link", "hard", fix)]) from error
            else:
                return found.st_size, LINKED
        with open(origin, "rb", buffering=0) as file:
            content = file.read(MOST_BYTES + 1)
        return self._write(path, content)

    def _folder(self, place: str, folder: str) -> str:
        """Return the folder's path with a slash behind it; make it where it is not there."""
        try:
            return self._made[place, folder]
        except KeyError:
            with self._making:
                return self._make(place, folder)

    def _make(self, place: str, folder: str) -> str:
        if place == "side":
            path = f"{self._root}/side"
        else:
            if os.path.lexists(self._target / place):
                fix = f"stands in {self._target} already, and is never written over. Move it away, or choose another target."
                raise ConfigError(STAGE, [Problem(place, None, fix)])
            make_folder(f"{self._root}/tree")
            path = f"{self._root}/tree/{place}"
        make_folder(path)
        if folder:
            check_part(folder, "folder")
            path += f"/{folder}"
            make_folder(path)
        self._made[place, folder] = path + "/"
        return path + "/"

    def _make_side(self, name: str) -> None:
        parts = name.split("/")
        for part in parts:
            check_part(part, "file")
        path = f"{self._root}/side"
        for part in parts[:-1]:
            path += f"/{part}"
            make_folder(path)


def make_folder(path: str) -> None:
    """Make a folder, or find that it is there and no link.

    Raises:
        DataError: something else stands there.
        OSError: it cannot be made.
    """
    try:
        Path(path).mkdir()
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise DataError(f"{path} is no folder, though only preparations write there. Delete it.") from None


def check_part(name: str, what: str) -> None:
    """Let a name pass that stands for one file or folder, and nowhere else.

    Raises:
        DataError: it does not.
    """
    if not _PART.fullmatch(name) or (len(name) > _MOST_NAME // 4 and len(os.fsencode(name)) > _MOST_NAME):
        shown = repr(name if len(name) <= 300 else name[:300] + "...")
        raise DataError(f"{shown} is no name for a {what} here (slash, leading dot, control character, or too long).")
