"""Which files of an index are bad, why, and how they looked then: what is kept, and believed as long as the file is the same."""

import os
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from src.data.headers import Header, whole_header_of
from src.data.index_cache import Names, State

Stamp = tuple[int, int, int]  # bytes, mtime_ns, ctime_ns; no content changes without the last, whatever tools do to the second
NO_FILE: Stamp = (-1, -1, -1)


class BadFile(NamedTuple):
    """Why a file cannot be used, and the stamp of the file of which that was found."""

    reason: str
    stamp: Stamp


BadFiles = dict[int, BadFile]  # by sample


def stamp_of(path: str) -> Stamp:
    """Return what tells a file from one that replaced it, or NO_FILE."""
    try:
        return stamp_from(os.stat(path))
    except OSError:
        return NO_FILE


def stamp_from(status: os.stat_result) -> Stamp:
    """Return the stamp of a file whose status is at hand."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def look_whole(path: str) -> tuple[Header, Stamp]:
    """Decode a whole file. The stamp is from before, so that a file replaced meanwhile is looked at again."""
    stamp = stamp_of(path)
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
    except OSError as error:
        return Header(0, 0, f"cannot be read ({error.strerror})"), stamp
    return whole_header_of(data), stamp


def state_of(bad: BadFiles, count: int) -> State:
    """Return what is cached, as arrays: a bit for every sample, and of each bad one, in order, its reason and its stamp."""
    places = np.array(sorted(bad), np.int64)
    bits = np.zeros(count, np.bool_)
    bits[places] = True
    reasons = Names.pack(bad[place].reason for place in places.tolist()).state()
    stamps = np.array([bad[place].stamp for place in places.tolist()], np.int64).reshape(-1, 3)
    return {"bad": np.packbits(bits), "bad_text": reasons["text"], "bad_ends": reasons["ends"], "bad_stamps": stamps}


def bad_from(state: State, count: int) -> BadFiles:
    """Rebuild from arrays."""
    places: Iterable[int] = np.flatnonzero(np.unpackbits(state["bad"], count=count)).tolist()
    reasons = Names(state["bad_text"].tobytes(), state["bad_ends"])
    stamps = state["bad_stamps"].tolist()
    return {place: BadFile(reasons[number], (*stamps[number],)) for number, place in enumerate(places)}
