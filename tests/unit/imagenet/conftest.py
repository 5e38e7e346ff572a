"""Tiny idx files for every test here, and a machine without a network."""

import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.imagenet.tiny import Tiny, write_tiny


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return write_tiny(tmp_path / "source")


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A proxy that refuses every connection at once, and no apt-get."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(urllib.request, "_opener", None)  # of an earlier test: it keeps the proxies that it met first
        yield
