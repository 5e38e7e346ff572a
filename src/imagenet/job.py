"""One preparation, as its stages are given it; and what its journal tells of it."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from src.config.prepare import PrepareConfig
from src.imagenet.extract import Amounts
from src.imagenet.journal import State

ORDER = ("fetch", "plan", "extract", "arrange", "index", "verify")
Progress = Callable[[int, int], None]


class Bars(Protocol):
    """How progress is shown."""

    def counting(self, what: str) -> AbstractContextManager[Progress]:
        """Show (done, total)."""

    def amounts(self, what: str) -> AbstractContextManager[Amounts]:
        """Show files and bytes, with the time that is left."""

    def transfer(self, what: str) -> AbstractContextManager[Progress]:
        """Show (bytes, bytes in all), with the time that is left."""

    def say(self, text: str) -> None:
        """Print as it is."""


class Job(NamedTuple):
    """One preparation.

    Attributes:
        config: what was asked for.
        source: what is prepared, or the folder that is downloaded into.
        target: the data set's folder.
        threads: at work at once.
        bars: shows progress.
    """

    config: PrepareConfig
    source: Path
    target: Path
    threads: int
    bars: Bars

    def goes_to(self, stage: str) -> bool:
        """Tell whether `until` lets it come to a stage."""
        return ORDER.index(self.config.until) >= ORDER.index(stage)


def is_arranged(state: State, target: Path) -> bool:
    """Tell whether a preparation published its splits, and all of them still stand there."""
    if "arrange" not in state.stages:
        return False
    return all((target / split).is_dir() for split in state.stages["arrange"]["counts"])


def same_place(state: State, source: Path) -> bool:
    """Tell whether the preparation that the journal tells of was of this source."""
    return state.start is not None and state.start["source"] == os.path.realpath(source)
