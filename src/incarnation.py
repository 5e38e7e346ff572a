"""One start of a run's processes among those that share torchrun's store: a name of its own."""

import os
import time
from collections.abc import Callable
from typing import Any

_LOOK_EVERY_SECONDS = 0.01


def agree_on_a_name(store: Any, *, rank: int, world_size: int, seconds: float) -> str:
    """Return a name that rank 0 made up for this start of the processes, the same on every rank.

    torchrun's store outlives its workers: after a restart they would read where those before them listened, and wait for the dead
    (seen with torch 2.15: gloo then tries to connect until its timeout). No variable of torchrun's tells one start from the next on
    every node, so each rank asks with a number of its own, and takes only the answer to that number.

    Args:
        store: a dist.Store that all ranks see.
        rank: of this process.
        world_size: number of ranks.
        seconds: how long to wait for the others.

    Raises:
        TimeoutError: if a rank does not come.
    """
    deadline = time.monotonic() + seconds

    def wait(until: Callable[[], bool]) -> None:
        while not until():  # in Python, where a signal is noticed
            if time.monotonic() > deadline:
                raise TimeoutError(f"not all of {world_size} ranks came within {seconds / 60:.0f} minutes.")
            time.sleep(_LOOK_EVERY_SECONDS)

    own = os.urandom(8).hex()
    if rank > 0:
        store.set(f"ask/{rank}", own)
        wait(lambda: bool(store.check([f"answer/{rank}/{own}"])))
        name: str = store.get(f"answer/{rank}/{own}").decode()
        store.set(f"took/{name}/{rank}", b"1")
        return name
    missing = set(range(1, world_size))

    def all_took_it() -> bool:
        for other in list(missing):
            if store.check([f"ask/{other}"]):
                store.set(f"answer/{other}/{store.get(f'ask/{other}').decode()}", own)  # an old question is answered, too: no harm
            if store.check([f"took/{own}/{other}"]):
                missing.discard(other)
        return not missing

    wait(all_took_it)
    return own
