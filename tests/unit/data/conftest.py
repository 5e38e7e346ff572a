"""The index as its users open it, and a count of the headers that it reads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from src.data import index as index_module
from src.data.headers import read_header
from src.data.index import FolderIndex, open_index

Opened = Callable[..., tuple[FolderIndex, NDArray[np.int64]]]


def every(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.arange(len(labels))


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def opened(cache_dir: Path) -> Opened:
    """Open the index of a folder: all of its samples, two threads, a cache folder of the test's own."""

    def open_(root: Path, choose: Any = every, **options: Any) -> tuple[FolderIndex, NDArray[np.int64]]:
        options = {"cache_dir": cache_dir, "threads": 2, "progress": lambda done, total: None} | options
        return open_index(root, choose=choose, **options)

    return open_


@pytest.fixture
def headers_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the files whose header is read from now on, by the real function."""
    paths: list[str] = []

    def counted(path: str) -> Any:
        paths.append(path)
        return read_header(path)

    monkeypatch.setattr(index_module, "read_header", counted)
    return paths
