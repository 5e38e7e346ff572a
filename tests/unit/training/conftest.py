"""What the tests of the training room share: what was said, a configuration from words, and a state small enough to save often."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from src import files
from src.config import Config, load
from src.training.checkpoint_file import SCHEMA

MakeState = Callable[..., dict[str, Any]]
Configure = Callable[..., Config]
CALLS = ("replace", "link", "unlink", "fsync", "fchmod", "open")  # mkstemp and pathlib go through these, too


@pytest.fixture(scope="session")
def configure() -> Configure:
    """Compose a configuration of synthetic images and the small ResNet, with overrides."""

    def make(*overrides: str) -> Config:
        return load(["data=synthetic", "model=small_resnet", "model.depth=8", "model.width=4", *overrides])

    return make


@pytest.fixture(scope="session")
def make_state() -> MakeState:
    """Make a checkpoint's content whose tensors tell the step."""

    def make(step: int, **more: Any) -> dict[str, Any]:
        weights = {"0.weight": torch.arange(12.0).view(3, 4) * step, "1.num_batches_tracked": torch.tensor(step)}
        optimizer = {"state": {0: {"momentum_buffer": torch.full((3, 4), float(step))}}, "param_groups": [{"lr": 0.1 * step}]}
        return {"schema": SCHEMA, "step": step, "model": weights, "optimizer": optimizer, "history": [], **more}

    return make


class Killed(BaseException):
    """The process is dead: nothing that it would have done afterwards happens."""


class System:
    """Counts system calls, and lets one fail, or the process die there.

    Args:
        at: the number of the call, from 0; before that, all is well.
        kind: "error" lets that call alone fail, "kill" that one and all that follow, so that no clean-up runs.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        self.at, self.kind = -1, "error"
        self.calls, self.killed = {*CALLS, "write"}, Killed
        patch.setattr(tempfile, "_get_candidate_names", lambda: iter("abcdefgh"))
        for name in CALLS:
            patch.setattr(os, name, self._faulty(name, getattr(os, name)))
        patch.setattr(files, "open", self._open, raising=False)

    def arm(self, at: int, kind: str) -> None:
        """Count anew, and fail at a call."""
        self.seen, self.at, self.kind = [], at, kind

    def disarm(self) -> None:
        """Let all go well."""
        self.at = -1

    def call(self, name: str) -> None:
        """Count a call, and fail if it is its turn."""
        number = len(self.seen)
        self.seen.append(name)
        if self.at >= 0 and self.kind == "kill" and number >= self.at:
            raise Killed(name)
        if number == self.at:
            raise OSError(errno.ENOSPC, "No space left on device")

    def _faulty(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.call(name)
            return real(*args, **kwargs)

        return call

    def _open(self, descriptor: int, mode: str, buffering: int) -> Any:
        file = open(descriptor, mode, buffering=0)  # noqa: SIM115 (the caller closes it)
        system = self

        class HalfWritten:
            """A file of which only the first half is written when it fails."""

            def __enter__(self) -> "HalfWritten":
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def write(self, data: bytes) -> None:
                file.write(data[: len(data) // 2])
                system.call("write")
                file.write(data[len(data) // 2 :])

            def flush(self) -> None:
                file.flush()

            def fileno(self) -> int:
                return file.fileno()

        return HalfWritten()


@pytest.fixture
def system() -> Iterator[System]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)  # a test needs no disk
        yield System(patch)
