"""Downloads from a server on this machine: broken off, gone on with, of another content, not there at all."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.config import ConfigError
from src.imagenet.default_source import ORDERS, beside, downloaded
from src.imagenet.sets import download as module
from src.imagenet.sets.download import Published, download
from tests.unit.imagenet.fetch.stand_ins import FileServer, serving

DATA = bytes(range(256)) * 4096  # 1 MiB


FILE = "/set.tgz"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as server:
        server.files[FILE] = DATA
        yield server


def published(*urls: str) -> Published:
    return Published(urls, hashlib.md5(DATA).hexdigest(), len(DATA))


def fetch(folder: Path, *urls: str) -> tuple[Path, list[tuple[int, int]]]:
    told: list[tuple[int, int]] = []
    path = download(published(*urls), folder, lambda done, total: told.append((done, total)))
    return path, told


def test_a_file_arrives_whole_and_is_not_asked_for_again(server: FileServer, tmp_path: Path) -> None:
    path, told = fetch(tmp_path / "new", server.url + FILE)
    assert path == tmp_path / "new" / "set.tgz"
    assert path.read_bytes() == DATA
    assert told[-1] == (len(DATA), len(DATA))
    assert told == sorted(told)
    assert fetch(tmp_path / "new", server.url + FILE) == (path, [])
    assert server.ranges(FILE) == [""]
    assert [file.name for file in path.parent.iterdir()] == ["set.tgz"]


def test_a_broken_connection_is_gone_on_with(server: FileServer, tmp_path: Path) -> None:
    server.break_after, server.breaks = 2**18, 99
    assert fetch(tmp_path, server.url + FILE)[0].read_bytes() == DATA
    assert server.ranges(FILE) == ["", "bytes=262144-", "bytes=524288-", "bytes=786432-"]


def test_what_a_killed_attempt_left_is_gone_on_with(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "set.tgz.part").write_bytes(DATA[:1000])
    assert fetch(tmp_path, server.url + FILE)[0].read_bytes() == DATA
    assert server.ranges(FILE) == ["bytes=1000-"]


def test_a_server_that_cannot_go_on_is_read_from_the_beginning(server: FileServer, tmp_path: Path) -> None:
    server.knows_ranges = False
    (tmp_path / "set.tgz.part").write_bytes(b"x" * 1000)
    assert fetch(tmp_path, server.url + FILE)[0].read_bytes() == DATA


def test_another_content_is_deleted_and_told(server: FileServer, tmp_path: Path) -> None:
    server.files[FILE] = DATA[:-1] + b"x"
    with pytest.raises(LookupError, match=f"sent has the md5 sum {hashlib.md5(server.files[FILE]).hexdigest()}, not "):
        fetch(tmp_path, server.url + FILE)
    assert list(tmp_path.iterdir()) == []
    server.files[FILE] = DATA
    assert fetch(tmp_path, server.url + FILE)[0].read_bytes() == DATA


def test_a_second_address_is_tried(server: FileServer, tmp_path: Path) -> None:
    dead = "http://127.0.0.1:9/set.tgz"
    assert fetch(tmp_path, dead, server.url + FILE)[0].read_bytes() == DATA


def test_a_file_that_is_gone_is_told_at_once(server: FileServer, tmp_path: Path) -> None:
    server.answers["GET", FILE] = (404, {}, b"")
    with pytest.raises(LookupError, match="HTTP Error 404"):
        fetch(tmp_path / "new", server.url + FILE)
    assert server.ranges(FILE) == [""]
    assert not (tmp_path / "new").exists()


def test_a_server_that_fails_half_way_is_given_up_and_what_came_stays(server: FileServer, tmp_path: Path) -> None:
    server.break_after, server.breaks = 0, 99
    (tmp_path / "set.tgz.part").write_bytes(DATA[:1000])
    with pytest.raises(LookupError, match="the connection was closed too early"):
        fetch(tmp_path, server.url + FILE)
    assert (tmp_path / "set.tgz.part").read_bytes() == DATA[:1000]


@pytest.mark.parametrize("name", ["cifar10", "imagenette"])
def test_without_a_network_it_says_what_to_download_and_type(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.01)
    with pytest.raises(ConfigError) as caught:
        downloaded(name, tmp_path / name, lambda done, total: None)
    for part in (ORDERS[name].file.urls[0], ORDERS[name].file.md5, "add source=<that file>", f"was not found in {tmp_path}"):
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["cifar10", "imagenette"])
def test_what_lies_beside_the_target_is_taken_in_a_fixed_order(name: str, tmp_path: Path) -> None:
    assert beside(name, tmp_path / name) is None
    for candidate in reversed(ORDERS[name].beside):
        (tmp_path / candidate).mkdir()
        assert beside(name, tmp_path / name) == tmp_path / candidate
