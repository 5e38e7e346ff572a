"""One published file over HTTP: resumed where it broke off, and compared with its sum before it gets its name."""

import hashlib
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from loguru import logger

from src.files import sync_folder

_SILENCE_SECONDS = 10  # of a server
_ATTEMPTS = 5  # without a byte more
_PAUSE_SECONDS = 1.0
_BLOCK = 2**20
_PART = ".part"
_OF_THE_NETWORK = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError)


class Published(NamedTuple):
    """A file as it is published.

    Attributes:
        urls: where it is, tried in turn.
        md5: its sum, in hex.
        bytes: its size.
    """

    urls: tuple[str, ...]
    md5: str
    bytes: int

    @property
    def name(self) -> str:
        """Its file name."""
        return self.urls[0].rpartition("/")[2]


def download(file: Published, folder: Path, progress: Callable[[int, int], None]) -> Path:
    """Fetch a file into a folder, which is made; what an earlier attempt left there is gone on with.

    Args:
        file: which.
        folder: for it.
        progress: called with bytes (done, total).

    Returns:
        Its path.

    Raises:
        LookupError: it cannot be had; says why. What has come stays for the next attempt, unless its sum is wrong.
        OSError: the folder cannot be written.
    """
    final = folder / file.name
    part = folder / (file.name + _PART)
    if final.is_file() and final.stat().st_size == file.bytes:
        return final
    failures, came = 0, False
    while (before := _size(part)) < file.bytes:
        url = file.urls[failures % len(file.urls)]
        try:
            _go_on(url, part, file.bytes, progress)
            reason = f"{url}: the connection was closed too early"
        except _OF_THE_NETWORK as error:
            reason = f"{url}: {error}"
        if _size(part) > before:
            failures, came = 0, True
            continue
        failures += 1
        if failures == (_ATTEMPTS if came else len(file.urls)):  # a machine without a network is told soon
            raise LookupError(reason)
        logger.info(f"{reason}: once more")
        time.sleep(_PAUSE_SECONDS)
    _check(file, part)
    part.rename(final)
    sync_folder(folder)
    return final


def _go_on(url: str, part: Path, total: int, progress: Callable[[int, int], None]) -> None:
    """Append what is missing, as far as the server sends it."""
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=_SILENCE_SECONDS) as answer:
        goes_on = answer.status == http.client.PARTIAL_CONTENT and answer.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        have = have if goes_on else 0
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab" if goes_on else "wb") as out:
            while have < total and (block := answer.read(min(_BLOCK, total - have))):
                out.write(block)
                have += len(block)
                progress(have, total)


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _check(file: Published, part: Path) -> None:
    with part.open("rb") as stream:
        md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if md5 != file.md5 or part.stat().st_size != file.bytes:
        part.unlink()
        raise LookupError(f"what {file.urls[0]} sent has the md5 sum {md5}, not {file.md5}; it was deleted")
