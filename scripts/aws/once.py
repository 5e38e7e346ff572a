"""Make a thing in AWS once, however often the command is killed, answers are lost, or AWS does not yet show what it made.

Two guards. The tag that is set with the creation finds what there is. For the seconds (AWS: eventual consistency) in which a
description does not show it yet there is the ClientToken: a request with a token that was seen is answered with the first one's
thing. Tokens are a function of the name, so they need no file; but AWS remembers them longer than the thing may live (at least a
day: EC2 API reference, "Ensuring idempotency"), so a token whose thing is gone is followed by the next.
"""

import hashlib
import time
from collections.abc import Callable
from typing import TypeVar

from scripts.aws.calls import Answer, CallError
from scripts.aws.errors import FailedError

_GENERATIONS = 100
_Found = TypeVar("_Found")  # Python 3.10 has no def f[T]
MISMATCH = "IdempotentParameterMismatch"


def client_token(kind: str, name: str, generation: int) -> str:
    """The token of the n-th thing of this kind and name: 64 hex digits, EC2's longest."""
    return hashlib.sha256(f"imagenet-trainer\n{kind}\n{name}\n{generation}".encode()).hexdigest()


def create_once(
    kind: str,
    name: str,
    *,
    look: Callable[[], Answer | None],
    create: Callable[[str], Answer],
    exists: Callable[[Answer], bool | None],
    every: float,
    patience: float = 90.0,
) -> tuple[Answer, bool]:
    """What there is of this name, else a new one.

    Args:
        kind: as "volume", part of the token.
        name: the user's.
        look: finds the living thing by its tag; None: there is none, or not to be seen yet.
        create: makes it with a ClientToken.
        exists: whether what `create` answered lives: False, it is gone for certain; None, it cannot be seen, yet or any more.
        every: seconds between two looks.
        patience: seconds for which AWS may not show what it made; what it does not show then is gone.

    Returns:
        The thing as `look` or `create` described it, and whether this call made it.

    Raises:
        FailedError: AWS remembers too many of this name.
    """
    found = look()
    if found is not None:
        return found, False
    for generation in range(_GENERATIONS):
        try:
            made = create(client_token(kind, name, generation))
        except CallError as error:
            if error.code != MISMATCH:
                raise
            # Used before, with other arguments: by one that is gone, or by one of some seconds ago that will show itself.
            found = _poll(look, every, patience)
            if found is not None:
                return found, False
            continue
        living = _poll(lambda made=made: exists(made), every, patience)  # type: ignore[misc]
        if living:
            return made, True
    raise FailedError(f"{kind} {name}: {_GENERATIONS} of this name were made and deleted within a day. Take another --name.")


def _poll(look: Callable[[], _Found | None], every: float, patience: float) -> _Found | None:
    """The first thing that is not None; None after so many seconds."""
    until = time.monotonic() + patience
    while (found := look()) is None and time.monotonic() < until:
        time.sleep(every)
    return found
