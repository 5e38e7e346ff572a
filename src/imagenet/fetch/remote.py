"""The words that services (who know what there is) and the download in parts (who writes it) share."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple, TypeVar

STAGE = "the download"
AGAIN = "Run the same command again: it continues where it stopped."
T = TypeVar("T")
Read = Callable[[int, int], Iterator[bytes]]
SumKind = Literal["none", "md5", "etag", "sha256"]


class Passing(Exception):  # noqa: N818 (the state it names)
    """A fault of the network or the service that may be gone in a moment: worth another attempt. Its text tells no address."""


class Changed(Exception):  # noqa: N818 (the state it names)
    """What is offered is no longer what was offered when the download began."""


class Remote(NamedTuple):
    """One file that a service offers.

    Attributes:
        name: its place below the folder, with "/" between its parts.
        bytes: its size.
        mark: tells one content from another (an ETag, a sha256): only with the same one a half-finished file is continued.
        read: called with (first byte, byte behind the last), yields what lies between; raises Passing, Changed or ConfigError.
        sum: which kind of sum `expected` is; "etag" is S3's of a file sent in parts: the md5 of the parts' md5s, and "-<parts>".
        expected: the sum in hex, "" for none.
        part_bytes: what is read by one request and noted when it is there; of an "etag", the size of its parts.
        modified: the service's time of its last change, in whole seconds, which the file gets as its own; None: it tells none.
        doubt: asked where the sum is wrong: whether the service's sum is none of the content after all. None: never.
    """

    name: str
    bytes: int
    mark: str
    read: Read
    sum: SumKind
    expected: str
    part_bytes: int
    modified: int | None
    doubt: Callable[[], bool] | None = None


class Offer(NamedTuple):
    """All that a service offers.

    Attributes:
        title: for messages: "s3://bucket/prefix", "the competition ...".
        files: number of them.
        bytes: of all.
        each: called for every walk over them: a bucket may hold a million.
        close: called when the offer is of no more use.
    """

    title: str
    files: int
    bytes: int
    each: Callable[[], Iterable[Remote]]
    close: Callable[[], object] = tuple


class Patience(NamedTuple):
    """How long faults that may pass are borne: `tries` attempts in a row without a new byte, pauses doubling up to a limit.

    Attributes:
        tries: attempts without a new byte before it is given up.
        first: pause after the first of them, in seconds.
        longest: pause, in seconds.
    """

    tries: int
    first: float
    longest: float

    def pause(self, failed: int) -> float:
        """Seconds to wait after so many attempts without a byte, 1 or more."""
        return min(self.first * 2.0 ** (failed - 1), self.longest)


FIRST_CONTACT = Patience(tries=3, first=1.0, longest=2.0)  # where there is no network, the message must come soon
UNDER_WAY = Patience(tries=9, first=1.0, longest=60.0)  # then about three minutes: a router that starts anew takes two


def md5(data: bytes = b"") -> "hashlib._Hash":
    """Return an md5 that also a system which allows no md5 for signatures gives."""
    return hashlib.md5(data, usedforsecurity=False)


def reason_of(error: BaseException) -> str:
    """Say why something failed, in words that hold no address, header or key: those of the operating system, or the error's name.

    Libraries put whole addresses into their messages, and signed ones are as good as a password.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    names = []
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        names.append(type(current).__name__)
        if isinstance(current, OSError) and isinstance(current.strerror, str):
            return current.strerror
        inner = getattr(current, "reason", None)
        nested = next((item for item in current.args if isinstance(item, BaseException)), None)
        current = inner if isinstance(inner, BaseException) else nested or current.__cause__ or current.__context__
    return names[0]


def first_contact(ask: Callable[[], T], patience: Patience = FIRST_CONTACT) -> T:
    """Return what `ask` returns; on Passing ask again a few times, soon.

    Raises:
        Passing: the last one.
    """
    for failed in range(1, patience.tries):
        try:
            return ask()
        except Passing:
            time.sleep(patience.pause(failed))
    return ask()
