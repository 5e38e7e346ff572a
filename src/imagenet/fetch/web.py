"""Read parts of a file from a web server, with `requests`. No address and no header gets into a message: both may hold a key."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from src.config import ConfigError, Problem
from src.imagenet.fetch.remote import STAGE, Changed, Passing, Read, reason_of

if TYPE_CHECKING:
    import requests

_TIMEOUT = (10, 60)  # seconds to connect; of silence
_CHUNK = 1 << 16  # what a broken connection loses at most
_TOO_MANY = 429
_NO_SUCH_RANGE = 416
_REFUSED = (400, 401, 403, 410)  # what servers answer to a signed address that is out of date


class Address(NamedTuple):
    """Where a file is, for a while.

    Attributes:
        url: may be signed, and then is a secret.
        token: sent as "Authorization: Bearer", to that host only; None for none.
    """

    url: str
    token: str | None


def part_reader(name: str, size: int, etag: str | None, find: Callable[[], Address]) -> Read:
    """Make a reader of parts of one file.

    Args:
        name: for messages.
        size: of the whole file.
        etag: that it must have, where the server tells one; None: not compared.
        find: asks for the address; called again where the server no longer takes the old one.
    """
    return _PartReader(name, size, etag, find)


class _PartReader:
    def __init__(self, name: str, size: int, etag: str | None, find: Callable[[], Address]) -> None:
        self._name, self._size, self._etag, self._find = name, size, etag, find
        self._address: Address | None = None

    def __call__(self, start: int, stop: int) -> Iterator[bytes]:
        import requests

        address = self._address or self._find()
        self._address = address
        try:
            with contextlib.closing(_get(address, start, stop)) as response:
                self._check(response, start, stop)
                yield from response.iter_content(_CHUNK)
        except (requests.RequestException, OSError) as error:
            raise Passing(f"the network failed ({reason_of(error)})") from None

    def _check(self, response: "requests.Response", start: int, stop: int) -> None:
        status = response.status_code
        if status in _REFUSED:
            self._address = None
            raise Passing(f"the server refused with status {status}")
        if status == _TOO_MANY or status >= 500:
            raise Passing(f"the server answered with status {status}")
        if status in (404, _NO_SUCH_RANGE):
            raise Changed(f"is no longer what it was (the server answered with status {status})")
        if status == 200 and (start, stop) != (0, self._size):
            fix = "the server sends whole files only, so that a broken download could not continue. Try another way to fetch it."
            raise ConfigError(STAGE, [Problem(self._name, None, fix)])
        if status not in (200, 206):
            raise Passing(f"the server answered with status {status}")
        told = (
            response.headers.get("Content-Range", "") if status == 206 else f"/{response.headers.get('Content-Length', self._size)}"
        )
        if told.rpartition("/")[2] not in (str(self._size), "*"):
            raise Changed(f"has {told.rpartition('/')[2]} bytes now, not {self._size:,}")
        if status == 206 and not told.startswith(f"bytes {start}-"):
            raise Passing("the server sent another part than was asked for")
        etag = response.headers.get("ETag")
        if self._etag is not None and etag is not None and etag.removeprefix("W/").strip('"') != self._etag:
            raise Changed("has another content now")


def _get(address: Address, start: int, stop: int) -> "requests.Response":
    import requests

    def sign(request: "requests.PreparedRequest") -> "requests.PreparedRequest":
        if address.token is not None:
            request.headers["Authorization"] = f"Bearer {address.token}"
        return request

    headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    # `auth`, even where it does nothing: without it requests would send what it finds in ~/.netrc
    return requests.get(address.url, headers=headers, auth=sign, stream=True, timeout=_TIMEOUT)


def reach(url: str, who: str) -> None:
    """Ask a service for anything at all, so that a missing network is told soon, whatever its client does.

    Raises:
        ConfigError: it does not answer.
    """
    import requests

    for pause in (1.0, 2.0, 0.0):
        try:
            requests.head(url, timeout=5, allow_redirects=False, auth=lambda request: request)
            return
        except requests.RequestException as error:
            reason = reason_of(error)
            time.sleep(pause)
    fix = f"does not answer ({reason}). Is this machine connected to the internet (HTTPS_PROXY set, where it needs one)?"
    raise ConfigError(STAGE, [Problem(who, None, fix)])
