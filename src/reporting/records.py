"""What one run's folder says, as plain records. What is damaged, altered or missing is told, never guessed."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from src.config.data import EXACT_ENGINES
from src.tracking.config_file import sealed_config
from src.tracking.jsonl import read_rows
from src.tracking.seal import read_seals

FILES = ("metrics.jsonl", "config.yaml", "status.json")  # any of them makes a folder a run's
# The header that a training says at each start (src/train_run.py), for runs whose status tells no protocol.
_HEADER = re.compile(r"INFO +data +\S.*: [\d,]+ train, (?P<val>[\d,]+) val, (?P<classes>[\d,]+) classes, (?P<engine>\S+)$", re.M)
_PRECISION = re.compile(r"INFO +model +.* parameters, (?P<precision>fp32|bf16|fp16|fp64)\b", re.M)
_CROP = "centre box"


class Epoch(NamedTuple):
    """One recorded epoch. Accuracies in percent, times of training in seconds; NaN where nothing was measured."""

    epoch: int
    step: int
    seconds: float
    elapsed: float
    train_loss: float
    train_acc1: float
    train_acc5: float
    val_loss: float
    val_acc1: float
    val_acc5: float

    @property
    def evaluated(self) -> bool:
        """Whether there was an evaluation, with finite figures."""
        return math.isfinite(self.val_acc1)


class Window(NamedTuple):
    """One line of the log: means since the one before."""

    step: int
    lr: float
    images_per_second: float
    data_wait: float


class Run(NamedTuple):
    """A run that can be reported.

    Attributes:
        path: its folder.
        name: the folder's.
        seed: the run's.
        stored: its whole configuration.
        status: finished, or what a reader should know instead.
        finished: whether all epochs that were asked for are recorded, the last one evaluated.
        epochs: recorded ones, in order.
        windows: lines of the log, in order.
        protocol: how it was evaluated; None for what was not recorded.
        meta: meta.json: command, commit, machine; empty where it is missing.
        notes: what is odd about it, as sentences.
    """

    path: Path
    name: str
    seed: int
    stored: Mapping[str, Any]
    status: str
    finished: bool
    epochs: tuple[Epoch, ...]
    windows: tuple[Window, ...]
    protocol: Mapping[str, Any]
    meta: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def evaluations(self) -> tuple[Epoch, ...]:
        """The epochs that were evaluated."""
        return tuple(epoch for epoch in self.epochs if epoch.evaluated)

    @property
    def steps_per_epoch(self) -> float:
        """How many updates an epoch has; NaN before the first was recorded."""
        return self.epochs[-1].step / (self.epochs[-1].epoch + 1) if self.epochs else math.nan

    @property
    def batch_size(self) -> int:
        """Images a step, over all ranks."""
        return int(self.stored["batch_size"])


class UnusableRunError(Exception):
    """Why a run cannot be reported, as what follows its name."""


def read_run(path: Path) -> Run:
    """Read a run's folder. Opens no checkpoint.

    Raises:
        UnusableRunError: if nothing of it can be trusted or nothing was recorded.
    """
    stored, notes = _configuration(path / "config.yaml")
    metrics = path / "metrics.jsonl"
    try:
        notes += _damage(metrics)
        rows = read_rows(metrics)
    except OSError as error:
        raise UnusableRunError(f"metrics.jsonl cannot be read ({error.strerror})") from error
    if not rows:
        raise UnusableRunError("nothing was recorded yet: metrics.jsonl is missing or empty")
    windows = tuple(_window(row) for row in rows if row["kind"] == "train")
    elapsed = {row["step"]: _figure(row, "time/elapsed_seconds") for row in rows if row["kind"] == "train"}
    epochs = _epochs([row for row in rows if row["kind"] == "epoch"], elapsed)
    state, meta = _object(path / "status.json"), _object(path / "meta.json")
    planned = int(stored["epochs"])
    finished = bool(epochs) and epochs[-1].epoch == planned - 1 and epochs[-1].evaluated
    status = _status(state, epochs, planned, finished=finished)
    protocol = _protocol(path, stored, state, finished=finished)
    return Run(path, path.name, int(stored["seed"]), stored, status, finished, epochs, windows, protocol, meta, tuple(notes))


def _configuration(path: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        stored = sealed_config(path.read_bytes())
    except OSError as error:
        raise UnusableRunError(f"config.yaml cannot be read ({error.strerror}), so that nobody can say what the run is") from error
    if stored is None:
        raise UnusableRunError(
            "config.yaml is not what the run wrote (edited, damaged, or of an older version). Restore it from a copy"
        )
    numbers = all(isinstance(stored.get(key), int) for key in ("epochs", "batch_size", "seed"))
    groups = all(isinstance(stored.get(key), dict) for key in ("data", "model", "optim", "average"))
    if not (numbers and groups):
        raise UnusableRunError("config.yaml is not a training's")
    return stored, []


def _damage(path: Path) -> list[str]:
    """Return what speaks against the figures.

    Raises:
        UnusableRunError: where the sealed lines are not those that were written.
        OSError: if it cannot be read.
    """
    if not path.exists():
        return []
    data = path.read_bytes()
    seals = read_seals(path)
    if seals and not any(seal.fits(data) for seal in seals):
        raise UnusableRunError("metrics.jsonl is not what the run wrote: a line was changed or lost. Restore it from a copy")
    notes = [] if seals else ["metrics.jsonl has no seal, so that a changed figure would not be seen"]
    lost = len(data.split(b"\n")[:-1]) - len(read_rows(path))
    if lost:
        notes.append(
            f"{lost} line{'s' if lost > 1 else ''} of metrics.jsonl cannot be read and {'are' if lost > 1 else 'is'} left out"
        )
    return notes


def _window(row: Mapping[str, Any]) -> Window:
    figures = (_figure(row, key) for key in ("train/lr", "time/images_per_second", "time/data_wait_fraction"))
    return Window(row["step"], *figures)


def _epochs(rows: list[dict[str, Any]], elapsed: Mapping[int, float]) -> tuple[Epoch, ...]:
    """Return the epochs in order, each once: of two rows with one step, the later was written by a resumed run."""
    found: dict[int, Epoch] = {}
    total = 0.0
    for row in rows:
        seconds = _figure(row, "time/epoch_seconds")
        total += seconds if math.isfinite(seconds) else 0.0
        known = elapsed.get(row["step"], math.nan)
        total = known if math.isfinite(known) else total
        keys = ("train/loss", "train/acc1", "train/acc5", "val/loss", "val/acc1", "val/acc5")
        found[row["step"]] = Epoch(row["epoch"], row["step"], seconds, total, *(_figure(row, key) for key in keys))
    return tuple(found[step] for step in sorted(found) if step > 0)


def _figure(row: Mapping[str, Any], key: str) -> float:
    value = float(row.get(key, math.nan))
    return value if math.isfinite(value) else math.nan


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _status(state: Mapping[str, Any], epochs: tuple[Epoch, ...], planned: int, *, finished: bool) -> str:
    if finished:
        return "finished"
    far = f"{len(epochs)} of {planned} epochs"
    match state.get("status"):
        case "running":
            return f"running or killed, {far}"
        case "preempted":
            return f"stopped, {far}"
        case "failed":
            return f"failed, {far}"
        case "finished":
            return f"lines are missing, {far}"
        case _:
            return f"unfinished, {far}"


def _protocol(path: Path, stored: Mapping[str, Any], state: Mapping[str, Any], *, finished: bool) -> dict[str, Any]:
    """Return how the run was evaluated: as it says itself, else from its configuration and the header of its log."""
    told = state.get("protocol")
    data = stored["data"]
    try:
        log = (path / "train.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        log = ""
    header, precision = _last(_HEADER, log), _last(_PRECISION, log)
    engine = header["engine"] if header else None
    average = str(stored["average"].get("name"))
    found: dict[str, Any] = {
        "split": "val",
        "subset": data.get("val_subset"),
        "images": int(header["val"].replace(",", "")) if header else None,
        "resize_size": data.get("resize_size"),
        "image_size": data.get("eval_image_size"),
        "crop": _CROP if engine == "ffcv" else "centre",
        "interpolation": "area" if engine == "ffcv" else data.get("eval_interpolation"),
        "engine": engine,
        "precision": precision["precision"] if precision else None,
        "weights": "trained" if average == "none" else average,
        "test_time_augmentation": stored.get("test_time_augmentation"),
    }
    if isinstance(told, dict):
        found |= {key: value for key, value in told.items() if key in found and isinstance(value, str | int)}
    if not finished:  # an average that had not begun when the run stopped is what it would have been evaluated at
        found["weights"] = "trained" if average == "none" else average
    found["classes"] = int(header["classes"].replace(",", "")) if header else None
    found["data"] = data.get("name")
    if found["engine"] in EXACT_ENGINES:
        found["engine"] = "exact"
    return found


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = None
    for found in pattern.finditer(text):  # noqa: B007 (the last one counts)
        pass
    return found
