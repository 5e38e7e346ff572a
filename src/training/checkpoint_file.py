"""One checkpoint as a file: tensors and plain containers only, hashed as it is written, checked when it is read."""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from src.files import write_temporary

SCHEMA = 3
_PIECE = 1 << 14  # numbers; torch computes up to 32,768 in the calling thread


class CheckpointError(Exception):
    """A checkpoint that cannot be used. The message says which, why, and what to do."""


class _Hashing:
    """What torch.save writes to: it hashes what passes through.

    torch.save must not meet an error of the disk, which its C++ part turns into another one: the first is kept for afterwards.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._hash = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        """Take the next bytes."""
        if self.error is None:
            try:
                self._hash.update(data)
                self._file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """Do nothing: whoever opened the file flushes it."""

    def hexdigest(self) -> str:
        """Return the sha256 of all that was written."""
        return self._hash.hexdigest()


def write_state(state: Mapping[str, Any], folder: Path) -> tuple[Path, str]:
    """Write a state under a temporary name. Returns the file and its sha256.

    It is hashed and written as it is serialised, for a copy of all of it would double the memory that a save takes.

    Raises:
        OSError: no temporary file is left.
    """
    digests: list[str] = []

    def write(file: IO[bytes]) -> None:
        hashing = _Hashing(file)
        torch.save(dict(state), cast(IO[bytes], hashing))
        if hashing.error is not None:
            raise hashing.error
        digests.append(hashing.hexdigest())

    return write_temporary(folder, write), digests[0]


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
    step = state.get("step")
    if not isinstance(step, int) or step < 0:
        raise CheckpointError(f"{path} is no checkpoint of ours: its step is {step!r:.80}. Restore it from a copy.")
    return cast(dict[str, Any], state)


def make_entry(sha256: str, step: int) -> dict[str, Any]:
    """Return a file's entry in the register, with a checksum of its own: a changed step would call another file the newest."""
    return {"sha256": sha256, "step": step, "check": f"{zlib.crc32(f'{sha256} {step}'.encode()):08x}"}


def entry_of(path: Path) -> dict[str, Any] | None:
    """Make a file's entry in the register anew, or None if its content does not match the CRC-32 that torch.save wrote."""
    try:
        data = path.read_bytes()
        step = _parse_intact(data, path)["step"]
    except (CheckpointError, OSError):
        return None
    return make_entry(hashlib.sha256(data).hexdigest(), step)


def load_file(path: Path) -> dict[str, Any]:
    """Read one checkpoint by its path.

    Raises:
        CheckpointError: if it cannot be read, or is damaged.
    """
    try:
        return _parse_intact(path.read_bytes(), path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}. Give the path of a .ckpt file.") from error


def _parse_intact(data: bytes, path: Path) -> dict[str, Any]:
    """Read a state, and compare it with the CRC-32 of each of its parts, which torch.load does not look at.

    Raises:
        CheckpointError: naming the file.
    """
    state = parse(data, path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            part = archive.testzip()
    except Exception as error:  # zipfile meets a damaged header in a dozen ways
        raise CheckpointError(f"{path} is damaged ({error}). Restore it from a copy.") from error
    if part is not None:
        raise CheckpointError(f"{path} is damaged: {part} in it has another CRC-32 than was written. Restore it from a copy.")
    return state


def require_finite(state: Any, path: str = "") -> None:
    """Refuse a state with a NaN or an infinity in any tensor.

    Raises:
        FloatingPointError: naming the tensor.
    """
    if isinstance(state, Tensor):
        if state.is_floating_point() and not _is_finite(state):
            raise FloatingPointError(
                f"{path.lstrip('.')} is not finite: this state is not saved. Lower optim.peak_lr, or set max_grad_norm=1.0"
            )
    elif isinstance(state, Mapping):
        for key, value in state.items():
            require_finite(value, f"{path}.{key}")
    elif isinstance(state, list | tuple):
        for position, value in enumerate(state):
            require_finite(value, f"{path}.{position}")


def _is_finite(tensor: Tensor) -> bool:
    """Look at every number, in pieces too small for torch to start threads: they would take the processors from training."""
    dense = tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)
    flat = tensor.as_strided((tensor.numel(),), (1,)) if dense else tensor.reshape(-1)
    return all(bool(torch.isfinite(piece).all()) for piece in torch.split(flat, _PIECE))
