"""Checkpoints: tensors and plain containers only, written so that a crash leaves the one before, and verified when read.

A file is valid if its sha256 stands in the folder's register (checkpoints.json). A new file's hash is entered before the file is
renamed into place, and the names that are gone are struck out last: at whatever instant a process dies, every whole file is known.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from loguru import logger
from torch import Tensor

from src.files import link_atomically, remove_leftovers, write_atomically

SCHEMA = 3
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
_REGISTER, _COMING = "checkpoints.json", "coming"
_MOST_FAILURES = 3

Register = dict[str, dict[str, Any]]  # file name -> {"sha256", "step"}


class CheckpointError(Exception):
    """A checkpoint that cannot be used. The message says which, why, and what to do."""


class Kept(NamedTuple):
    """One checkpoint kept for its accuracy: file name and the step it was saved at."""

    name: str
    step: int


class Checkpoints:
    """One run's checkpoint folder. Only rank 0 holds one that writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._failures = 0
        self._damaged: set[str] = set()

    def prepare(self) -> None:
        """Make the folder and clear what a dead process left half-written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)

    def save(self, state: Mapping[str, Any], kept: Sequence[Kept], best: Kept | None) -> bool:
        """Write the state as last.ckpt; the last one becomes previous.ckpt. Give it its further names, drop those not kept.

        A disk that is full, or fails, costs this checkpoint and a warning; the third failure in a row is raised.

        Args:
            state: tensors and plain containers.
            kept: the checkpoints to keep by accuracy. The one of this step, if there is one, is this state.
            best: the best so far, or None.

        Returns:
            Whether it was written.
        """
        try:
            self._save(state, kept, best)
        except OSError as error:
            self._failures += 1
            logger.warning(f"checkpoint of step {state['step']} not written: {error}. The one before stays; free some space.")
            if self._failures >= _MOST_FAILURES:
                raise
            return False
        self._failures = 0
        return True

    def _save(self, state: Mapping[str, Any], kept: Sequence[Kept], best: Kept | None) -> None:
        require_finite(state)
        data = serialise(state)
        register = self._register()
        if _COMING in register:  # the save before died or failed on its way: see how far it came
            register = self._found(register)
        last, previous = self.folder / LAST, self.folder / PREVIOUS
        entry = {"sha256": hashlib.sha256(data).hexdigest(), "step": state["step"]}
        self._write_register({**register, _COMING: entry})
        if LAST in register and last.exists() and LAST not in self._damaged:
            link_atomically(last, previous)
            register[PREVIOUS] = register[LAST]
        write_atomically(last, data)
        self._damaged.discard(LAST)
        register[LAST] = entry
        wanted = {item.name: item.step for item in kept}
        if best is not None:
            wanted[BEST] = best.step
        for name, step in wanted.items():
            if step == state["step"]:
                link_atomically(last, self.folder / name)
                register[name] = register[LAST]
        for stale in self.folder.glob("*-epoch-*-val_acc1-*.ckpt"):
            if stale.name not in wanted:
                stale.unlink(missing_ok=True)
        self._write_register({name: entry for name, entry in register.items() if name in {LAST, PREVIOUS, *wanted}})

    def find_newest(self) -> Path | None:
        """Return the newest valid checkpoint, or None in a new run's folder. Damaged files are passed over, loudly.

        Raises:
            CheckpointError: if there are checkpoints but none is valid.
        """
        found = self._found(self._register())
        if not found and self.has_any():
            raise CheckpointError(
                f"no checkpoint in {self.folder} is valid (see the warnings above). Restore one from a copy, "
                "or choose another run_name to start anew."
            )
        newest = max(found, key=lambda name: int(found[name]["step"]), default=None)
        return None if newest is None else self.folder / newest

    def has_any(self) -> bool:
        """Return whether the folder holds a checkpoint, valid or not."""
        return any(self.folder.glob("*.ckpt"))

    def _found(self, register: Register) -> Register:
        """Read every file, and return the entries of those whose content is known. The others are told, and noted as damaged."""
        known = {entry["sha256"]: entry for entry in register.values()}
        found: Register = {}
        self._damaged = set()
        hashes: dict[int, str] = {}  # by inode: names of one file are read once
        for path in sorted(self.folder.glob("*.ckpt")):
            inode = path.stat().st_ino
            if inode not in hashes:
                hashes[inode] = hashlib.sha256(path.read_bytes()).hexdigest()
            if hashes[inode] in known:
                found[path.name] = known[hashes[inode]]
            else:
                self._damaged.add(path.name)
                logger.warning(f"{path} is damaged: its sha256 is not in {_REGISTER}. Passed over.")
        return found

    def _register(self) -> Register:
        file = self.folder / _REGISTER
        try:
            register = json.loads(file.read_text())
            if all(isinstance(entry["sha256"], str) and isinstance(entry["step"], int) for entry in register.values()):
                return cast(Register, register)
        except (FileNotFoundError, ValueError, AttributeError, TypeError, KeyError):
            pass
        if self.has_any():
            logger.warning(f"{file} is missing or damaged. Each checkpoint is checked by the CRC-32 it carries instead.")
        return {path.name: entry for path in self.folder.glob("*.ckpt") if (entry := entry_of(path)) is not None}

    def _write_register(self, register: Register) -> None:
        write_atomically(self.folder / _REGISTER, json.dumps(register, indent=1).encode())


def serialise(state: Mapping[str, Any]) -> memoryview:
    """Return the file's bytes."""
    memory = io.BytesIO()
    torch.save(dict(state), memory)
    return memory.getbuffer()


def parse(data: bytes, path: Path) -> dict[str, Any]:
    """Read a state without ever running code from it.

    Raises:
        CheckpointError: naming the file, if it is no checkpoint of ours.
    """
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} cannot be read: {reason}. Only tensors and plain containers are loaded.") from error
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        found = state.get("schema") if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{path} is no checkpoint of schema {SCHEMA} (found: {found}). Use the version that wrote it.")
    return cast(dict[str, Any], state)


def entry_of(path: Path) -> dict[str, Any] | None:
    """Make a file's entry in the register anew, or None if its content does not match the CRC-32 that torch.save wrote."""
    data = path.read_bytes()
    try:
        state = parse(data, path)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            intact = archive.testzip() is None
    except (CheckpointError, zipfile.BadZipFile):
        return None
    return {"sha256": hashlib.sha256(data).hexdigest(), "step": state["step"]} if intact else None


def load_file(path: Path) -> dict[str, Any]:
    """Read one checkpoint by its path.

    Raises:
        CheckpointError: if it cannot be read.
    """
    try:
        return parse(path.read_bytes(), path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}. Give the path of a .ckpt file.") from error


def kept_name(model: str, epoch: int, acc1: float) -> str:
    """Return `<model>-epoch-<epoch>-val_acc1-<acc>.ckpt`."""
    return f"{re.sub(r'[^A-Za-z0-9_.]+', '_', model)}-epoch-{epoch:03d}-val_acc1-{acc1:.3f}.ckpt"


def require_finite(state: Any, path: str = "") -> None:
    """Refuse a state with a NaN or an infinity in any tensor.

    Raises:
        FloatingPointError: naming the tensor.
    """
    if isinstance(state, Tensor):
        if state.is_floating_point() and not bool(torch.isfinite(state).all()):
            raise FloatingPointError(
                f"{path.lstrip('.')} is not finite: this state is not saved. Lower optim.peak_lr, or set max_grad_norm=1.0"
            )
    elif isinstance(state, Mapping):
        for key, value in state.items():
            require_finite(value, f"{path}.{key}")
    elif isinstance(state, list | tuple):
        for position, value in enumerate(state):
            require_finite(value, f"{path}.{position}")
