"""What scenarios of guides are played in."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.docs.scenarios import Shell

OpenShell = Callable[..., Shell]


@pytest.fixture
def open_shell() -> Iterator[OpenShell]:
    """Give a shell in a fresh copy of the project (in memory where there is some: thousands of files come and go)."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as room:

        def make(variables: Mapping[str, str] | None = None, *, patience: float = 280.0) -> Shell:
            return Shell(Path(tempfile.mkdtemp(dir=room)), variables, patience=patience)

        yield make
