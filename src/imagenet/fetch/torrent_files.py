"""Which torrents are asked for, and their torrent files: published ones, local ones, those of an address or a magnet link.

The torrents of Academic Torrents (https://academictorrents.com/details/<info hash>) are named so by many; the first two with their
sizes in CompVis/taming-transformers, taming/data/imagenet.py; the third in fru-legacy/stream-protobuf-datasets. A torrent file that
is downloaded must have the info hash, so that it cannot be another, and every piece must have the SHA-1 that it tells.
"""

import concurrent.futures
import hashlib
import re
import socket
import urllib.request
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from loguru import logger

from src.config import ConfigError, Problem
from src.imagenet.fetch.aria2 import Aria2Failed, problem_of, run_aria2
from src.imagenet.fetch.metainfo import Torrent, read_torrent
from src.imagenet.fetch.remote import STAGE
from src.imagenet.published import TRAIN_TAR, VAL_TAR

INFO_HASHES = {
    VAL_TAR: "5d6d0df7ed81efd49ca99ea4737e0ae5e3a5f2e5",
    TRAIN_TAR: "a306397ccf9c2ead27155983c254227c0fd938e2",
    "ILSVRC2017_CLS-LOC.tar.gz": "943977d8c96892d24237638335e481f3ccd54cfb",
}
USUAL = (VAL_TAR, TRAIN_TAR)
_URL = "https://academictorrents.com/download/{}.torrent"
_FIRST_SECONDS = 25.0  # for a torrent file, or another small one
_METADATA_SECONDS = 300.0  # for a magnet link: peers are looked for
_DHT = "dht.transmissionbt.com:6881"
_WEB = (
    "--follow-torrent=false",
    "--connect-timeout=10",
    "--timeout=15",
    "--max-tries=2",
    "--retry-wait=1",
    "--allow-overwrite=true",
)


class Wanted(NamedTuple):
    """One torrent: its file, what it tells."""

    path: Path
    torrent: Torrent


def items_of(origin: str | None) -> list[str]:
    """Split what was asked for at its commas, or list a folder's torrent files; None: USUAL.

    Raises:
        ConfigError: something in it is neither a torrent file nor an address, nor published.
    """
    if origin is None:
        return list(USUAL)
    given = Path(origin).expanduser()
    if given.is_file():
        return [origin]
    if given.is_dir() and (inside := sorted(str(path) for path in given.glob("*.torrent"))):
        return inside
    parts = [part.strip() for part in re.split(r",(?=\s*(?:magnet:|https?://|[^,]*\.torrent\b|ILSVRC))", origin)]
    problems = [
        Problem("origin", part, f"is no torrent file, no magnet link and none of {', '.join(INFO_HASHES)}.")
        for part in parts
        if part not in INFO_HASHES and not is_address(part) and not Path(part).expanduser().is_file()
    ]
    if problems:
        raise ConfigError(STAGE, problems)
    return parts


def is_address(item: str) -> bool:
    """Return whether it is a magnet link or the address of a torrent file."""
    return item.startswith(("magnet:", "http://", "https://"))


def wanted_of(item: str, notes: Path) -> Wanted:
    """Get the torrent file of one item, and read it.

    Raises:
        ConfigError: it cannot be had, or is not what it should be.
    """
    if item in INFO_HASHES:
        path = notes / f"{INFO_HASHES[item]}.torrent"
        if not path.is_file():
            fetch_small(_URL.format(INFO_HASHES[item]), path, [], "academictorrents.com")
        torrent = read(path, item)
        if torrent.info_hash != INFO_HASHES[item]:
            path.unlink()
            fix = f"academictorrents.com sent another torrent ({torrent.info_hash}, not {INFO_HASHES[item]}). Try again later."
            raise ConfigError(STAGE, [Problem(item, None, fix)])
        return Wanted(path, torrent)
    if item.startswith("magnet:"):
        return _from_magnet(item, notes)
    if is_address(item):
        path = notes / f"{hashlib.sha256(item.encode()).hexdigest()[:16]}.torrent"
        if not path.is_file():
            fetch_small(item, path, [], urlsplit(item).hostname or "the server")
        return Wanted(path, read(path, path.name))
    path = Path(item).expanduser()
    torrent = read(path, item)
    _check_network(torrent.hosts, item)
    return Wanted(path, torrent)


def read(path: Path, name: str) -> Torrent:
    """Read a torrent file.

    Raises:
        ConfigError: it is none, or cannot be read.
    """
    try:
        return read_torrent(path)
    except ValueError as error:
        raise ConfigError(STAGE, [Problem("origin", name, f"{error}.")]) from error
    except OSError as error:
        raise ConfigError(STAGE, [Problem("origin", name, f"cannot be read ({error.strerror}).")]) from error


def _from_magnet(link: str, notes: Path) -> Wanted:
    query = parse_qs(urlsplit(link).query)
    hashes = [text.removeprefix("urn:btih:").lower() for text in query.get("xt", ()) if text.startswith("urn:btih:")]
    if not hashes or not re.fullmatch("[0-9a-f]{40}", hashes[0]):
        raise ConfigError(STAGE, [Problem("origin", None, "that magnet link has no xt=urn:btih:<40 hex digits>. Copy it again.")])
    path = notes / f"{hashes[0]}.torrent"
    if not path.is_file():
        _check_network(tuple(host for text in query.get("tr", ()) if (host := urlsplit(text).hostname)), "the magnet link")
        logger.info("asking other computers what is behind the magnet link")
        options = ["--bt-metadata-only=true", "--bt-save-metadata=true", "--seed-time=0", *peers(notes)]
        try:
            run_aria2(link, notes, options, lambda done: None, seconds=_METADATA_SECONDS)
        except Aria2Failed as error:
            raise problem_of(error, "the magnet link") from None
    return Wanted(path, read(path, "the magnet link"))


def peers(notes: Path) -> list[str]:
    """Return the options by which aria2 looks for peers without a tracker, and remembers them."""
    return [f"--dht-file-path={notes}/dht.dat", "--enable-dht6=false", f"--dht-entry-point={_DHT}"]


def fetch_small(url: str, path: Path, options: list[str], who: str) -> None:
    """Download a small file from a web server, soon or not at all.

    Raises:
        ConfigError: the server does not give it.
    """
    try:
        run_aria2(url, path.parent, [f"--out={path.name}", *_WEB, *options], lambda done: None, seconds=_FIRST_SECONDS)
    except Aria2Failed as error:
        fix = (
            f"{path.name} could not be had ({error}). Is this machine connected to the internet? "
            f"You can also download it with a browser into {path.parent}, and run this again."
        )
        raise ConfigError(STAGE, [Problem(who, None, fix)]) from None


def _check_network(hosts: tuple[str, ...], name: str) -> None:
    """Refuse where no tracker and no web seed has an address: without a network aria2 would look for peers for ten minutes.

    Raises:
        ConfigError: no name could be resolved.
    """
    if not hosts or urllib.request.getproxies():
        return
    pool = concurrent.futures.ThreadPoolExecutor(len(hosts))
    try:
        asked = [pool.submit(socket.getaddrinfo, host, None) for host in hosts]
        if any(future.exception() is None for future in concurrent.futures.as_completed(asked, timeout=20)):
            return
    except concurrent.futures.TimeoutError:
        pass
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    fix = f"none of its servers ({', '.join(hosts[:3])}) has an address. Is this machine connected to the internet?"
    raise ConfigError(STAGE, [Problem(name, None, fix)])
