"""What a tracker's own process does, whoever it tells: take the order, follow metrics.jsonl, end when the training has ended.

It is the other side of detached.py. No torch here: the process starts in half a second, and the training's memory is not doubled.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

LOOK_EVERY_SECONDS = 1.0
_HIGHEST_NICENESS = 10
_MEANS_OF_AN_EPOCH = ("train/", "data/", "augment/")  # a window's row has the same keys
Row = dict[str, Any]
Follow = Callable[[dict[str, Any], threading.Event, IO[str]], None]


class Rows:
    """The rows of metrics.jsonl as they come, grouped by step.

    Args:
        path: need not exist yet.
        has: tells of a row that it is to be left out.
    """

    def __init__(self, path: Path, has: Callable[[Row], bool] = lambda row: False) -> None:
        self._path, self._has, self._offset, self._held = path, has, 0, list[Row]()

    def new_steps(self) -> Iterator[list[Row]]:
        """Yield the rows of each step that is complete: an epoch's row has come, or a row of a later step."""
        for row in self._read():
            if self._held and self._held[0]["step"] != row["step"]:
                yield self.rest()
            self._held.append(row)
            if row["kind"] == "epoch":
                yield self.rest()

    def rest(self) -> list[Row]:
        """Return the rows of the last step, which waited for an epoch's row; perhaps none."""
        rows, self._held = self._held, []
        return rows

    def _read(self) -> Iterator[Row]:
        try:
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            try:
                row = json.loads(line)
                if row["kind"] in ("train", "epoch") and row["step"] >= 0 and not self._has(row):
                    yield row
            except (ValueError, KeyError, TypeError):
                continue  # not a row: the training itself reports a damaged file


def merged(rows: list[Row]) -> dict[str, float]:
    """Return one row from those of one step.

    An epoch's row ends at the step of its last window, and has means under the same keys: they go under train_epoch/, data_epoch/
    and augment_epoch/.
    """
    values: dict[str, float] = {}
    for row in rows:
        for key, value in row.items():
            if row["kind"] == "epoch" and key.startswith(_MEANS_OF_AN_EPOCH):
                group, _, name = key.partition("/")
                values[f"{group}_epoch/{name}"] = value
            elif key not in ("kind", "step"):
                values[key] = value
    return values


def run_follower(follow: Follow) -> int:
    """Follow the run until standard input ends. Returns the exit code.

    Args:
        follow: gets the order, an event that is set when the training has ended, and where to say something on its console.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are the training's to answer; its end is ours
    os.nice(_HIGHEST_NICENESS)
    speak = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    order = json.loads(sys.stdin.buffer.readline())
    ended = threading.Event()
    threading.Thread(target=_watch, args=(ended, order["finish_seconds"], speak), daemon=True).start()
    try:
        follow(order, ended, speak)
    except Exception as error:  # noqa: BLE001 (the door of this process: the training shall say it)
        say(speak, why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        _kill_children()
        os._exit(1)  # a library's own exit handlers could wait for a service that is gone
    return 0


def say(speak: IO[str], **words: str) -> None:
    """Tell the training, as detached.py reads it: say="..." for its console, why="..." before failing."""
    with suppress(OSError):  # nobody listens any more
        print(json.dumps(words), file=speak, flush=True)


def _watch(ended: threading.Event, finish_seconds: float, speak: IO[str]) -> None:
    """Wait for the training's end, however it ends, and see to it that this process ends soon after."""
    sys.stdin.buffer.read()
    ended.set()
    time.sleep(finish_seconds)
    say(speak, why=f"it could not send everything within {finish_seconds:g} seconds")
    _kill_children()
    os._exit(3)


def _kill_children() -> None:
    """End the processes that a library has started, which have sessions of their own and may be stopped."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                os.kill(int(stat.parent.name), signal.SIGKILL)
        except (OSError, IndexError):
            continue
