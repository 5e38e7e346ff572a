"""Weights & Biases, as a process of its own: `python -m src.tracking.wandb_tracker`, started by detached.py.

It sends the rows of metrics.jsonl with the optimizer's step as wandb's. The run's id stands in <run>/wandb/sent.json, and what was
sent in wandb's own files, so a run that was resumed is one run there too: rows that are trained again are the same and are not sent
twice, and rows that an earlier process could not send are sent now.

Two rows of one step become one of wandb's: an epoch's row ends at the step of its last window. So the last window waits for the
row after it.
"""

import fcntl
import json
import netrc
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from src.files import write_atomically
from src.tracking.follower import LOOK_EVERY_SECONDS, Row, Rows, merged, run_follower, say
from src.tracking.wandb_log import last_step

_KINDS = ("train", "epoch")
_SITE = "https://api.wandb.ai"


class Sent:
    """Which run it is at wandb, and the last step sent of each kind of row.

    Args:
        path: of sent.json. What cannot be read counts as nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            stored = json.loads(path.read_text())
            self.id, self.steps = str(stored["id"]), {kind: int(stored[kind]) for kind in _KINDS}
            self._began = int(stored.get("began", 0))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self.id, self.steps, self._began = os.urandom(4).hex(), dict.fromkeys(_KINDS, 0), 0

    def begin(self) -> None:
        """Learn what became of what an earlier process handed over: where that was killed, wandb has not kept all of it.

        Where wandb's files are gone, for they were sent and cleared away, what was noted counts.
        """
        kept = last_step(self._path.parent, self.id)
        if kept is not None:
            self.steps = dict.fromkeys(_KINDS, max(self._began, kept))
        self._began = max(self.steps.values())  # a step is sent with all its rows
        self.note([])

    def has(self, row: Row) -> bool:
        """Return whether the row was sent."""
        return bool(row["step"] <= self.steps[row["kind"]])

    def note(self, rows: list[Row]) -> None:
        """Remember that these were sent."""
        for row in rows:
            self.steps[row["kind"]] = max(self.steps[row["kind"]], row["step"])
        write_atomically(self._path, json.dumps({"id": self.id, **self.steps, "began": self._began}).encode())


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
        sent.begin()
        run = _start(order, sent, speak)
        rows = Rows(folder / "metrics.jsonl", sent.has)
        while True:
            last = ended.wait(LOOK_EVERY_SECONDS)
            for group in rows.new_steps():
                if group[0]["step"] >= run.starting_step:  # where wandb's server has them already
                    run.log(merged(group), step=group[0]["step"])
                sent.note(group)
            if last:
                break
        run.finish(exit_code=0 if _went_well(folder) else 1)


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
            x_transaction_log_flush_interval=LOOK_EVERY_SECONDS,
        ),
    )
    where = run.url if online else f"offline. To send it: wandb sync {folder}/wandb/offline-run-*-{sent.id}"
    say(speak, say=where)
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


def _nothing() -> None:
    """Answer wandb's stop button: a run is stopped by its STOP file."""


if __name__ == "__main__":
    sys.exit(run_follower(follow))
