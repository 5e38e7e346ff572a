"""From the track group to the trackers that stand beside metrics.jsonl and the console."""

import importlib.util
from pathlib import Path
from typing import assert_never

from src.batch import Tracker
from src.config import Config, Problem
from src.config.identity import computed, run_name
from src.config.secrets import hide_in_tree
from src.config.track import TrackConfig, TrackLocally, TrackWandb
from src.tracking.detached import FINISH_SECONDS, DetachedTracker


def tracker_problems(track: TrackConfig) -> list[Problem]:
    """Look for a package that the choice needs."""
    match track:
        case TrackLocally():
            return []
        case TrackWandb():
            missing = [name for name in ("wandb", "dotenv") if importlib.util.find_spec(name) is None]
            fix = "needs a package that is not installed. Type pip install -e '.[wandb]', or set track=default."
            return [Problem("track", track.name, fix)] if missing else []
        case _:
            assert_never(track)


def more_trackers(config: Config, folder: Path) -> list[Tracker]:
    """Start what the choice asks for, on rank 0.

    Args:
        config: of the run; what could change its result is told to the tracker, paths are not.
        folder: the run's.
    """
    track = config.track
    match track:
        case TrackLocally():
            return []
        case TrackWandb():
            order = {
                "folder": str(folder.absolute()),
                "finish_seconds": FINISH_SECONDS,
                "name": run_name(config),
                "project": track.project,
                "entity": track.entity,
                "tags": track.tags,
                "mode": track.mode,
                "config": hide_in_tree(computed(config)),
            }
            log = folder / "wandb" / "output.log"
            return [DetachedTracker("wandb", "src.tracking.wandb_tracker", order, log=log, own_variables="WANDB_")]
        case _:
            assert_never(track)
