"""From the track group to the trackers that stand beside metrics.jsonl and the console."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, assert_never

from src.batch import Record, Tracker
from src.config import Config, Problem
from src.config.identity import computed, run_name
from src.config.secrets import hide_in_tree
from src.config.track import TrackConfig, TrackLocally, TrackTensorboard, TrackWandb
from src.tracking.detached import FINISH_SECONDS, DetachedTracker

_SECRETS_OF_NOBODY = "TENSORBOARD_"  # it is told none: nothing with a secret's name begins so


def tracker_problems(track: TrackConfig) -> list[Problem]:
    """Look for the packages that the choices need."""
    problems = []
    if track.tensorboard and _is_missing("tensorboard"):
        key, value = ("track", track.name) if isinstance(track, TrackTensorboard) else ("track.tensorboard", track.tensorboard)
        fix = "needs a package that is not installed. Type pip install -e '.[tensorboard]', or go without."
        problems.append(Problem(key, value, fix))
    if isinstance(track, TrackWandb) and (_is_missing("wandb") or _is_missing("dotenv")):
        fix = "needs a package that is not installed. Type pip install -e '.[wandb]', or set track=default."
        problems.append(Problem("track", track.name, fix))
    return problems


def more_trackers(config: Config, folder: Path) -> list[Tracker]:
    """Start what the choices ask for, on rank 0.

    Args:
        config: of the run; what could change its result is told to the trackers, paths are not.
        folder: the run's.
    """
    track = config.track
    order = {
        "folder": str(folder.absolute()),
        "finish_seconds": FINISH_SECONDS,
        "name": run_name(config),
        "config": hide_in_tree(computed(config)),
    }
    started = [_start_tensorboard(order, folder)] if track.tensorboard else []
    match track:
        case TrackLocally() | TrackTensorboard():
            pass
        case TrackWandb():
            started.append(_start_wandb(order, folder, track))
        case _:
            assert_never(track)
    return [Together(started)] if len(started) > 1 else [*started]


class Together:
    """Several of them: at the end they are given the same seconds, not each its own."""

    def __init__(self, trackers: Sequence[DetachedTracker]) -> None:
        self._trackers = trackers

    def log(self, record: Record) -> None:
        """Pass it on."""
        for tracker in self._trackers:
            tracker.log(record)

    def advance(self, step: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Tell all, then wait for each."""
        for tracker in self._trackers:
            tracker.tell_end()
        for tracker in self._trackers:
            tracker.close()


def _start_tensorboard(order: dict[str, Any], folder: Path) -> DetachedTracker:
    log = folder / "tensorboard" / "output.log"
    module = "src.tracking.tensorboard_tracker"
    return DetachedTracker("tensorboard", module, order, log=log, own_variables=_SECRETS_OF_NOBODY)


def _start_wandb(order: dict[str, Any], folder: Path, track: TrackWandb) -> DetachedTracker:
    more = {"project": track.project, "entity": track.entity, "tags": track.tags, "mode": track.mode}
    log = folder / "wandb" / "output.log"
    return DetachedTracker("wandb", "src.tracking.wandb_tracker", order | more, log=log, own_variables="WANDB_")


def _is_missing(package: str) -> bool:
    return importlib.util.find_spec(package) is None
