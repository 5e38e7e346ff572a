"""Room on a disk, and data that last on it."""

import ctypes
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from src.config import Problem

FULL = (errno.ENOSPC, errno.EDQUOT)
_BESIDE_BYTES = 300  # a file's share of the journal, manifest and index, and of its folder
_libc = ctypes.CDLL(None, use_errno=True)


class StoppedError(Exception):
    """Met on the way, and none of the user's mistakes: the exit code is 1, and the same command goes on."""


class Need(NamedTuple):
    """What is still to be written.

    Attributes:
        files: new files: names alone, which hard links are, do not count.
        bytes: their contents.
        folders: new folders.
        names: new files and links.
    """

    files: int
    bytes: int
    folders: int
    names: int


class Room(NamedTuple):
    """What a file system needs and has.

    Attributes:
        bytes_needed: contents, rounded up to blocks, and what is kept beside them.
        bytes_free: for this user.
        inodes_needed: files and folders.
        inodes_free: None where the file system has no limit.
    """

    bytes_needed: int
    bytes_free: int
    inodes_needed: int
    inodes_free: int | None


def room_at(target: Path, need: Need) -> Room:
    """Compare need and room of the file system that the target is, or would be, on.

    Raises:
        OSError: it cannot be asked.
    """
    found = os.statvfs(nearest_folder(target))
    block = found.f_frsize or found.f_bsize or 4096
    needed = need.bytes + need.files * block // 2 + need.names * _BESIDE_BYTES + need.folders * block
    # btrfs, exFAT, most network file systems: no table of inodes
    inodes_free = found.f_favail if found.f_files else None
    return Room(needed, found.f_bavail * block, need.files + need.folders, inodes_free)


def room_problems(target: Path, room: Room) -> list[Problem]:
    """List what there is too little of."""
    problems = []
    where = "Make room there, or choose another disk with target=<folder>."
    if room.bytes_needed > room.bytes_free:
        lacking = room.bytes_needed - room.bytes_free
        fix = f"{size(room.bytes_needed)} are needed, {size(room.bytes_free)} are free: {size(lacking)} too little. {where}"
        problems.append(Problem("target", str(target), fix))
    if room.inodes_free is not None and room.inodes_needed > room.inodes_free:
        fix = f"{room.inodes_needed:,} files and folders (inodes) are needed, {room.inodes_free:,} can still be made. {where}"
        fix += " An ext4 made with `mkfs.ext4 -i 16384` or an XFS has enough for ImageNet's 1.33 million."
        problems.append(Problem("target", str(target), fix))
    return problems


def nearest_folder(path: Path) -> Path:
    """Return the path, or the nearest of its parents that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def sync_file_system(folder: Path) -> None:
    """Wait until all that was written to the folder's file system lasts.

    One call for many files: fsync of each would take hours for a million.

    Raises:
        OSError: something did not reach the disk.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not hasattr(_libc, "syncfs"):  # only Linux has it
            os.sync()
        elif _libc.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def size(count: float) -> str:
    """Return bytes for people: "137.8 GiB"."""
    units: Sequence[str] = ("bytes", "KiB", "MiB", "GiB", "TiB")
    place = 0
    while count >= 1024 and place < len(units) - 1:
        count, place = count / 1024, place + 1
    return f"{count:,.0f} {units[place]}" if place == 0 else f"{count:,.1f} {units[place]}"
