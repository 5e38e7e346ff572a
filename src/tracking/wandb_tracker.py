"""Weights & Biases, as a process of its own: `python -m src.tracking.wandb_tracker`, started by detached.py.

It sends the rows of metrics.jsonl with the optimizer's step as wandb's. What it has sent, and the run's id, stand in
<run>/wandb/sent.json, so a run that was resumed is one run there too: rows that are trained again are the same and are not sent
twice, and rows that an earlier process could not send are sent now.

Two rows of one step become one of wandb's: an epoch's row ends at the step of its last window. The epoch's own training means go
under train_epoch/. So the last window waits for the row after it.

No torch here: the process starts in half a second, and the training's memory is not doubled.
"""

import fcntl
import json
import netrc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from src.files import write_atomically

_LOOK_EVERY_SECONDS = 1.0
_HIGHEST_NICENESS = 10
_SITE = "https://api.wandb.ai"
Row = dict[str, Any]


class Sent:
    """Which run it is at wandb, and the last step sent of each kind of row.

    Args:
        path: of sent.json. What cannot be read counts as nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            stored = json.loads(path.read_text())
            self.id, self.steps = str(stored["id"]), {kind: int(stored[kind]) for kind in ("train", "epoch")}
        except (OSError, ValueError, KeyError, TypeError):
            self.id, self.steps = os.urandom(4).hex(), {"train": 0, "epoch": 0}

    def has(self, row: Row) -> bool:
        """Return whether the row was sent."""
        return bool(row["step"] <= self.steps[row["kind"]])

    def note(self, rows: list[Row]) -> None:
        """Remember that these were sent."""
        for row in rows:
            self.steps[row["kind"]] = max(self.steps[row["kind"]], row["step"])
        write_atomically(self._path, json.dumps({"id": self.id, **self.steps}).encode())


class Rows:
    """The rows of metrics.jsonl as they come, grouped by step.

    Args:
        path: need not exist yet.
        sent: rows that it has are left out.
    """

    def __init__(self, path: Path, sent: Sent) -> None:
        self._path, self._sent, self._offset, self._held = path, sent, 0, list[Row]()

    def new_steps(self) -> Iterator[list[Row]]:
        """Yield the rows of each step that is complete: an epoch's row has come, or a row of a later step."""
        for row in self._read():
            if self._held and self._held[0]["step"] != row["step"]:
                yield self._take()
            self._held.append(row)
            if row["kind"] == "epoch":
                yield self._take()

    def _take(self) -> list[Row]:
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
                if not self._sent.has(row):
                    yield row
            except (ValueError, KeyError, TypeError):
                continue  # not a row: the training itself reports a damaged file


def main() -> int:
    """Follow the run until standard input ends. Returns the exit code."""
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
        _say(speak, why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        _kill_children()
        os._exit(1)  # wandb's own exit handlers could wait for a service that is gone
    return 0


def follow(order: dict[str, Any], ended: threading.Event, speak: IO[str]) -> None:
    """Send rows until the training has ended and all are sent.

    Args:
        order: folder, project, entity, tags, mode, name, config; see conf/track/wandb.yaml.
        ended: set when the training has ended.
        speak: to the training's console.
    """
    folder = Path(order["folder"])
    with open(folder / "wandb" / ".lock", "a") as lock:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)  # an earlier process of this run may still be sending
        sent = Sent(folder / "wandb" / "sent.json")
        sent.note([])
        run = _start(order, sent, speak)
        rows = Rows(folder / "metrics.jsonl", sent)
        while True:
            last = ended.wait(_LOOK_EVERY_SECONDS)
            for group in rows.new_steps():
                if group[0]["step"] >= run.starting_step:  # where wandb's server has them already
                    run.log(merged(group), step=group[0]["step"])
                sent.note(group)
            if last:
                break
        run.finish(exit_code=0 if _went_well(folder) else 1)


def merged(rows: list[Row]) -> dict[str, float]:
    """Return one row of wandb's from those of one step."""
    values: dict[str, float] = {}
    for row in rows:
        epochs = row["kind"] == "epoch"
        for key, value in row.items():
            if key not in ("kind", "step"):
                values[f"train_epoch/{key.removeprefix('train/')}" if epochs and key.startswith("train/") else key] = value
    return values


def _start(order: dict[str, Any], sent: Sent, speak: IO[str]) -> Any:
    """Begin the run at wandb, or go on with it, telling it nothing but the configuration."""
    os.environ["WANDB_ERROR_REPORTING"] = "false"  # before the import: no reports to third parties
    online = _is_online(order["mode"])
    import wandb

    folder = order["folder"]
    run = wandb.init(
        project=order["project"],
        entity=order["entity"],
        tags=order["tags"],
        name=order["name"],
        config=order["config"],
        id=sent.id,
        resume="allow" if online else None,  # offline there is nothing to ask; wandb sync appends to the id
        dir=folder,
        settings=wandb.Settings(
            mode="online" if online else "offline",
            console="off",
            silent=True,
            save_code=False,
            disable_code=True,
            disable_git=True,
            host="",
            stop_fn=_nothing,
            x_disable_meta=True,  # command line, program, user, git remote
            x_save_requirements=False,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_transaction_log_flush_interval=_LOOK_EVERY_SECONDS,
        ),
    )
    where = run.url if online else f"offline. To send it: wandb sync {folder}/wandb/offline-run-*-{sent.id}"
    _say(speak, say=where)
    return run


def _is_online(mode: str) -> bool:
    """Return whether to send at once. A key in .env counts for this process alone; offline there is none."""
    from dotenv import dotenv_values

    for name, value in dotenv_values(".env", interpolate=False).items():
        if name.startswith("WANDB_") and value:
            os.environ.setdefault(name, value)
    online = mode == "online" or (mode == "auto" and ("WANDB_API_KEY" in os.environ or _netrc_has_key()))
    if not online:
        os.environ.pop("WANDB_API_KEY", None)
    return online


def _netrc_has_key() -> bool:
    """Return whether `wandb login` has left a key."""
    host = urlsplit(os.environ.get("WANDB_BASE_URL", _SITE)).netloc
    candidates = [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]
    for candidate in candidates:
        try:
            return netrc.netrc(Path(candidate).expanduser()).authenticators(host) is not None
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _went_well(folder: Path) -> bool:
    try:
        return json.loads((folder / "status.json").read_text())["status"] in ("finished", "preempted")
    except (OSError, ValueError, KeyError):
        return False


def _watch(ended: threading.Event, finish_seconds: float, speak: IO[str]) -> None:
    """Wait for the training's end, however it ends, and see to it that this process ends soon after."""
    sys.stdin.buffer.read()
    ended.set()
    time.sleep(finish_seconds)
    _say(speak, why=f"it could not send everything within {finish_seconds:g} seconds")
    _kill_children()
    os._exit(3)


def _kill_children() -> None:
    """End wandb's service, which has a session of its own and may be stopped."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                os.kill(int(stat.parent.name), signal.SIGKILL)
        except (OSError, IndexError):
            continue


def _nothing() -> None:
    """Answer wandb's stop button: a run is stopped by its STOP file."""


def _say(speak: IO[str], **words: str) -> None:
    with suppress(OSError):  # nobody listens any more
        print(json.dumps(words), file=speak, flush=True)


if __name__ == "__main__":
    sys.exit(main())
