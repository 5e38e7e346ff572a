"""What tests ask the kernel about processes."""

import contextlib
from pathlib import Path


def children(pid: int) -> list[int]:
    """Return the ids of the processes that this one has started and that are still there."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found
