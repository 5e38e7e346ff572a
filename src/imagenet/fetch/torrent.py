"""BitTorrent by aria2: what Academic Torrents publishes of ImageNet, or any torrent file or magnet link."""

import os
from collections.abc import Callable
from pathlib import Path

from loguru import logger

from src.config import ConfigError, Problem
from src.imagenet.fetch.aria2 import Aria2Failed, check_installed, problem_of, run_aria2
from src.imagenet.fetch.notes import Receipts, check_space
from src.imagenet.fetch.remote import AGAIN, STAGE
from src.imagenet.fetch.torrent_files import INFO_HASHES, Wanted, fetch_small, is_address, items_of, peers, read, wanted_of
from src.imagenet.published import DEVKIT_TAR, PUBLISHED
from src.imagenet.space import sync_file_system

_DEVKIT_URL = f"https://image-net.org/data/ILSVRC/2012/{DEVKIT_TAR}"  # given to anyone; tells the validation images' classes
_STALL_SECONDS = 600  # without a byte


def download(origin: str | None, folder: Path, notes: Path, progress: Callable[[int, int], None]) -> list[str]:
    """Download what the torrents tell. Returns the names of the files.

    Args:
        origin: a folder of torrent files; or files, addresses, magnet links, names of INFO_HASHES, with commas between; None:
            USUAL and the devkit.
        folder: to download into.
        notes: its notes' folder.
        progress: called with (bytes there, bytes in all).

    Raises:
        ConfigError: aria2 is missing, the network, the origin or the disk fails.
    """
    check_installed()
    receipts = Receipts(folder)
    names = [DEVKIT_TAR] if origin is None else []
    if origin is None:
        _fetch_devkit(folder, receipts)  # first: it is small, and tells at once whether there is a network
    all_wanted = [wanted_of(item, notes) for item in items_of(origin)]
    total = sum(wanted.torrent.bytes for wanted in all_wanted)
    missing = total - sum(_there(folder, name) for wanted in all_wanted for name, _ in wanted.torrent.files)
    check_space(folder, max(missing, 0))
    before = 0
    for wanted in all_wanted:
        if not all(receipts.holds(name, size, wanted.torrent.info_hash) for name, size in wanted.torrent.files):
            _fetch_torrent(wanted, folder, notes, lambda done, before=before: progress(before + done, total))  # type: ignore[misc]
            sync_file_system(folder)
            for name, _ in wanted.torrent.files:
                receipts.add(name, wanted.torrent.info_hash)
        before += wanted.torrent.bytes
        names += [name for name, _ in wanted.torrent.files]
        progress(before, total)
    return names


def describe(origin: str | None, folder: Path) -> list[str]:
    """Say what would be downloaded, without asking anybody.

    Raises:
        ConfigError: aria2 is missing, or a torrent file cannot be read.
    """
    check_installed()
    lines = []
    for item in items_of(origin):
        if item in INFO_HASHES:
            lines.append(f"would download {item} into {folder}, by the torrent {INFO_HASHES[item]} of academictorrents.com")
        elif is_address(item):
            lines.append(f"would download by a torrent into {folder}; only its torrent file tells what, and how much")
        else:
            torrent = read(Path(item).expanduser(), item)
            first = ", ".join(name for name, _ in torrent.files[:3])
            lines.append(f"would download {len(torrent.files):,} files ({first}), {torrent.bytes:,} bytes, into {folder}")
    if origin is None:
        lines.append(f"would download {DEVKIT_TAR} into {folder}, from image-net.org")
    return lines


def _fetch_torrent(wanted: Wanted, folder: Path, notes: Path, told: Callable[[int], None]) -> None:
    title = wanted.torrent.files[0][0].partition("/")[0]
    there = sum(_there(folder, name) for name, _ in wanted.torrent.files)
    checking = f"; the {there:,} that are there are checked first" if there else ""
    logger.info(f"downloading {title} by BitTorrent, {wanted.torrent.bytes:,} bytes, into {folder}{checking}")
    options = [
        "--seed-time=0",
        "--bt-remove-unselected-file=false",
        "--follow-torrent=mem",
        f"--bt-stop-timeout={_STALL_SECONDS}",
        "--bt-tracker-connect-timeout=10",
        "--bt-tracker-timeout=20",
        *peers(notes),
    ]
    try:
        run_aria2(str(wanted.path), folder, options, told)
    except Aria2Failed as error:
        raise problem_of(error, title) from None
    for name, size in wanted.torrent.files:
        state = (folder / name).stat() if (folder / name).is_file() else None
        if state is None or state.st_size != size:
            raise ConfigError(STAGE, [Problem(str(folder / name), None, f"is not whole although aria2 says so. {AGAIN}")])


def _fetch_devkit(folder: Path, receipts: Receipts) -> None:
    md5 = PUBLISHED[DEVKIT_TAR].md5
    if receipts.knows(DEVKIT_TAR, md5):
        return
    fetch_small(_DEVKIT_URL, folder / DEVKIT_TAR, [f"--checksum=md5={md5}"], "image-net.org")
    sync_file_system(folder)
    receipts.add(DEVKIT_TAR, md5)


def _there(folder: Path, name: str) -> int:
    """Return how many bytes of a file are on the disk: what is not there yet are holes."""
    try:
        state = os.stat(folder / name)
    except OSError:
        return 0
    return min(state.st_size, state.st_blocks * 512)
