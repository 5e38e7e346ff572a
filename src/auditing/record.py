"""What a run's folder claims: its configuration, metrics, ledger and checkpoints. Read only."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.config import Config, ConfigError, Problem, load_stored
from src.config.identity import differences
from src.tracking.config_file import read_config
from src.tracking.jsonl import read_rows as read_metrics
from src.tracking.ledger_file import MAGIC, NAME, read_rows
from src.tracking.seal import read_seals
from src.training.checkpoint_file import CheckpointError, load_file

STAGE = "the run"
_METRICS, _REGISTER = "metrics.jsonl", "checkpoints.json"


class State(NamedTuple):
    """A kept checkpoint: its file names (those of one content are one state), and what it holds."""

    names: tuple[str, ...]
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Updates done."""
        return int(self.state["step"])

    @property
    def recorded(self) -> bool:
        """Whether the epoch that ends here is in its history already."""
        return bool(self.state["history"]) and int(self.state["history"][-1]["step"]) == self.step


class RunRecord(NamedTuple):
    """A run's folder as it was found.

    Attributes:
        folder: the run's.
        config: what the replay is made with: the run's, with the user's values for what moved.
        metrics: rows of metrics.jsonl.
        ledger: (N,) of type src.tracking.ledger_file.ROW.
        states: kept checkpoints by step; of one step the one before its evaluation first.
        status: what status.json says.
        wrong: file name to what is wrong with the file itself.
    """

    folder: Path
    config: Config
    metrics: list[dict[str, Any]]
    ledger: NDArray[np.void]
    states: list[State]
    status: dict[str, Any]
    wrong: dict[str, str]


def read_record(folder: Path, overrides: Sequence[str]) -> RunRecord:
    """Read a run's folder.

    Args:
        folder: the run's.
        overrides: values for what moved since. None of them may change what is computed.

    Raises:
        ConfigError: where there is too little to audit, saying what is missing.
    """
    wrong: dict[str, str] = {}
    states = _read_states(folder / "checkpoints", wrong)
    stored = read_config(folder / "config.yaml") if (folder / "config.yaml").exists() else None
    if stored is None:
        wrong["config.yaml"] = "is missing, or is not what was written"
        stored = states[-1].state["config"] if states else None
    problems = []
    ledger_data, metrics_data = (_bytes_of(folder / name) for name in (NAME, _METRICS))
    if not ledger_data.startswith(MAGIC) or not len(read_rows(ledger_data)):
        fix = "is missing, empty or no ledger: the run was trained by an older version, or the file was lost. It cannot be audited."
        problems.append(Problem(str(folder / NAME), None, fix))
    if stored is None:
        problems.append(Problem(str(folder), None, "holds neither a config.yaml nor a checkpoint that can be read."))
    if problems or stored is None:
        raise ConfigError(STAGE, problems)
    config = load_stored(stored, overrides)
    for key, before, now in differences(config, stored):
        problems.append(Problem(key, now, f"was {before} in the run: with another value it would be another run."))
    if problems:
        raise ConfigError(STAGE, problems)
    for name, data in ((NAME, ledger_data), (_METRICS, metrics_data)):
        seals = read_seals(folder / name)
        if not seals:
            wrong[name] = "has no seal"
        elif not any(seal.fits(data) for seal in seals):
            wrong[name] = "does not begin with the bytes that were sealed"
    metrics = read_metrics(folder / _METRICS)
    if lines := metrics_data.count(b"\n") - len(metrics):
        wrong[_METRICS] = f"holds {lines} lines that are no rows"
    return RunRecord(folder, config, metrics, read_rows(ledger_data), states, _read_json(folder / "status.json"), wrong)


def _read_states(folder: Path, wrong: dict[str, str]) -> list[State]:
    """Return every checkpoint that can be read, and note what is wrong with files."""
    register = _read_json(folder / _REGISTER)
    by_file: dict[int, str] = {}  # names of one file are read once
    by_content: dict[str, list[Path]] = {}  # a copied folder holds a file for each name
    for path in sorted(folder.glob("*.ckpt")):
        inode = path.stat().st_ino
        if inode not in by_file:
            by_file[inode] = _digest(path)
        by_content.setdefault(by_file[inode], []).append(path)
    states = []
    for digest, paths in by_content.items():
        try:
            state = load_file(paths[0])
        except CheckpointError as error:
            wrong[paths[0].name] = str(error)
            continue
        for path in paths:
            entry = register.get(path.name)
            if not isinstance(entry, dict) or (entry.get("sha256"), entry.get("step")) != (digest, state["step"]):
                wrong[path.name] = f"is not the file that {_REGISTER} names"
        states.append(State(tuple(path.name for path in paths), state))
    gone = [name for name in register if name.endswith(".ckpt") and not (folder / name).exists()]
    wrong.update(dict.fromkeys(gone, f"is gone, though {_REGISTER} names it"))
    return sorted(states, key=lambda each: (each.step, len(each.state["history"])))


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
