"""TensorBoard, as a process of its own: `python -m src.tracking.tensorboard_tracker`, started by detached.py.

The event files in <run>/tensorboard are a picture of metrics.jsonl. Each start writes a new one with every row that is there, and
deletes those before it: so a run that was killed and resumed has each step of each key once, whatever died when. A TensorBoard
that is looking on forgets what it had, for the new file begins with a start at step 0
(`SessionLog.START`, in tensorboard/backend/event_processing/event_accumulator.py).
"""

import fcntl
import json
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from src.tracking.follower import LOOK_EVERY_SECONDS, Row, Rows, merged, run_follower, say

FOLDER = "tensorboard"  # in the run's


def follow(order: dict[str, Any], ended: threading.Event, speak: IO[str]) -> None:
    """Write rows until the training has ended and all are written.

    Args:
        order: folder, name, config (flat, without secrets).
        ended: set when the training has ended.
        speak: to the training's console.
    """
    folder = Path(order["folder"])
    place = folder / FOLDER
    with open(place / ".lock", "a") as lock:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)  # an earlier process of this run may still be writing
        earlier = list(place.glob("events.out.tfevents.*"))
        events = Events(place, began=_began(folder))
        events.describe(order["name"], order["config"])
        rows = Rows(folder / "metrics.jsonl")
        for group in rows.new_steps():
            events.write(group)
        events.flush()
        for file in earlier:
            file.unlink(missing_ok=True)
        say(speak, say=f"tensorboard --logdir {folder.parent}")
        last = False
        while not last:
            last = ended.wait(LOOK_EVERY_SECONDS)
            for group in rows.new_steps():
                events.write(group)
            events.flush()
        events.write(rows.rest())
        events.close()


class Events:
    """An event file, by TensorBoard's own writer.

    Args:
        place: the folder.
        began: seconds since 1970 at the run's first step; rows are dated by the time trained since, also those of another process.
    """

    def __init__(self, place: Path, *, began: float) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._began, self._trained = began, 0.0
        self._writer = EventFileWriter(str(place), flush_secs=LOOK_EVERY_SECONDS)
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._writer.add_event(self._event(wall_time=began, step=0, session_log=start))

    def describe(self, name: str, config: Mapping[str, object]) -> None:
        """Write the configuration: as text, and for TensorBoard's table of hyperparameters.

        Args:
            name: of the run.
            config: dotted key to plain value.
        """
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.plugins.text.summary_v2 import text_pb

        lines = "\n".join(f"    {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in config.items())
        values = {key: value if isinstance(value, bool | int | float | str) else json.dumps(value) for key, value in config.items()}
        for summary in (text_pb("config", lines), hparams_pb(values, trial_id=name, start_time_secs=self._began)):
            self._writer.add_event(self._event(wall_time=self._began, step=0, summary=summary))

    def write(self, rows: list[Row]) -> None:
        """Write the rows of one step as one event: its scalars under our keys, as float32."""
        if not rows:
            return
        values = merged(rows)
        self._trained = max(self._trained, float(values.get("time/elapsed_seconds", 0.0)))
        summary = self._summary(value=[self._summary.Value(tag=key, simple_value=value) for key, value in values.items()])
        self._writer.add_event(self._event(wall_time=self._began + self._trained, step=rows[0]["step"], summary=summary))

    def flush(self) -> None:
        """Wait until the file has everything.

        Raises:
            OSError: if it cannot be written.
        """
        self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self._writer.flush()
        self._writer.close()


def _began(folder: Path) -> float:
    """Return when the run began."""
    try:
        return float(json.loads((folder / "meta.json").read_text())["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return time.time()


if __name__ == "__main__":
    sys.exit(run_follower(follow))
