"""Checkpoints: tensors and plain containers only, written so that a crash leaves the one before, and verified when read.

A file is valid if its sha256 stands in the folder's register (checkpoints.json). A new file's hash is entered before the file is
renamed into place, and the names that are gone are struck out last: at whatever instant a process dies, every whole file is known.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from loguru import logger

from src.files import discard, link_atomically, put_in_place, remove_leftovers, write_atomically
from src.training.checkpoint_file import CheckpointError, entry_of, make_entry, require_finite, write_state

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
_REGISTER, _COMING = "checkpoints.json", "coming"
_MOST_FAILURES = 3

Register = dict[str, dict[str, Any]]  # file name -> what make_entry returns


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
        self._valid: Register = {}  # as they were found at the start

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

        Raises:
            CheckpointError: the third time in a row that it could not be written.
            FloatingPointError: if a tensor is not finite; nothing was written.
        """
        require_finite(state)
        try:
            self._save(state, kept, best)
        except OSError as error:
            self._failures += 1
            logger.warning(f"checkpoint of step {state['step']} not written: {error}. The one before stays; free some space.")
            if self._failures >= _MOST_FAILURES:
                raise CheckpointError(
                    f"{self._failures} checkpoints in a row could not be written to {self.folder}, the last for: {error}. "
                    "The one before them is kept: free some space, and the same command goes on from it."
                ) from error
            return False
        self._failures = 0
        return True

    def _save(self, state: Mapping[str, Any], kept: Sequence[Kept], best: Kept | None) -> None:
        temporary, digest = write_state(state, self.folder)  # most of the work, and nothing is touched yet
        entry = make_entry(digest, state["step"])
        last, previous = self.folder / LAST, self.folder / PREVIOUS
        try:
            register = self._register()
            if _COMING in register:  # the save before died or failed on its way: see how far it came
                register = self._found(register)
            self._write_register({**register, _COMING: entry})
            if LAST in register and last.exists() and LAST not in self._damaged:
                link_atomically(last, previous)
                register[PREVIOUS] = register[LAST]
            put_in_place(temporary, last)
        except BaseException:
            discard(temporary)
            raise
        self._damaged.discard(LAST)
        register[LAST] = entry
        self._name(LAST, register, names_of(kept, best))

    def _name(self, name: str, register: Register, wanted: Mapping[str, int]) -> None:
        """Give a state its further names, drop those that are not wanted, and write the register, which is the caller's own."""
        entry = register[name]
        for further, step in wanted.items():
            if step == entry["step"]:
                link_atomically(self.folder / name, self.folder / further)
                register[further] = entry
        for stale in self._not_among(wanted):
            stale.unlink(missing_ok=True)
        self._write_register({name: entry for name, entry in register.items() if name in {LAST, PREVIOUS, *wanted}})

    def _not_among(self, wanted: Mapping[str, int]) -> list[Path]:
        return [path for path in self.folder.glob("*-epoch-*-val_acc1-*.ckpt") if path.name not in wanted]

    def finish(self, resumed: Path, kept: Sequence[Kept], best: Kept | None) -> None:
        """Do what a save that died or failed still owed the state that the run goes on from: its further names, and what to drop.

        It may have been the last save of all, or the only one of its epoch: no other would do it. A disk that refuses it costs a
        warning, and the next start tries again. Call it after find_newest.

        Args:
            resumed: the checkpoint; one of another folder is none of ours.
            kept: as for save, with its history.
            best: as for save.
        """
        wanted = names_of(kept, best)
        if resumed.parent != self.folder or resumed.name not in self._valid:
            return
        entry = self._valid[resumed.name]
        owed = [name for name, step in wanted.items() if step == entry["step"] and self._valid.get(name) != entry]
        if not owed and not self._not_among(wanted):
            return
        try:
            self._name(resumed.name, dict(self._valid), wanted)
        except OSError as error:
            logger.warning(f"{resumed} is owed its names ({', '.join(owed)}): {error}. The next start tries again.")

    def find_newest(self) -> Path | None:
        """Return the newest valid checkpoint, or None in a new run's folder. Damaged files are passed over, loudly.

        Raises:
            CheckpointError: if there are checkpoints but none is valid.
        """
        register = self._register()
        found = self._valid = self._found(register)
        named = sorted(register.keys() - {_COMING})
        if not found and (named or self.has_any()):
            gone = "" if self.has_any() else f" {_REGISTER} names {', '.join(named)}, which are gone."
            raise CheckpointError(
                f"no checkpoint in {self.folder} is valid (see the warnings above).{gone} Restore one from a copy, "
                "or choose another run_name to start anew."
            )
        if not found:
            return None
        newest = max(found, key=lambda name: int(found[name]["step"]))
        step = found[newest]["step"]
        known = max((register[name]["step"] for name in named), default=step)
        if step < known:
            logger.warning(
                f"THE NEWEST CHECKPOINT IS LOST: it was of step {known:,}; {newest} of step {step:,} is left, and taken."
            )
        return self.folder / newest

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
            try:
                inode = path.stat().st_ino
                if inode not in hashes:
                    hashes[inode] = hashlib.sha256(path.read_bytes()).hexdigest()
                wrong = None if hashes[inode] in known else f"is damaged: its sha256 is not in {_REGISTER}"
            except OSError as error:
                wrong = f"cannot be read: {error.strerror}"
            if wrong is None:
                found[path.name] = known[hashes[inode]]
            else:
                self._damaged.add(path.name)
                logger.warning(f"{path} {wrong}. Passed over.")
        for name in (LAST, PREVIOUS, BEST):
            if name in register and name not in found and name not in self._damaged:
                logger.warning(f"{self.folder / name} is gone, though {_REGISTER} names it. Passed over.")
        return found

    def _register(self) -> Register:
        file = self.folder / _REGISTER
        try:
            register = json.loads(file.read_bytes())
            if all(entry == make_entry(entry["sha256"], entry["step"]) for entry in register.values()):
                return cast(Register, register)
        except (OSError, ValueError, RecursionError, AttributeError, TypeError, KeyError):
            pass
        if self.has_any():
            logger.warning(f"{file} is missing or damaged. Each checkpoint is checked by the CRC-32 it carries instead.")
        return {path.name: entry for path in self.folder.glob("*.ckpt") if (entry := entry_of(path)) is not None}

    def _write_register(self, register: Register) -> None:
        write_atomically(self.folder / _REGISTER, json.dumps(register, indent=1).encode())


def names_of(kept: Sequence[Kept], best: Kept | None) -> dict[str, int]:
    """Return the names that checkpoints have for their accuracy, and the steps of the states that they belong to."""
    return {item.name: item.step for item in kept} | ({} if best is None else {BEST: best.step})


def kept_name(model: str, epoch: int, acc1: float) -> str:
    """Return `<model>-epoch-<epoch>-val_acc1-<acc>.ckpt`."""
    return f"{re.sub(r'[^A-Za-z0-9_.]+', '_', model)}-epoch-{epoch:03d}-val_acc1-{acc1:.3f}.ckpt"
