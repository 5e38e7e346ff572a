"""Torrents by the real aria2: whole, killed and continued, damaged, without a network. Torrent files are read without trust."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src.config import ConfigError
from src.imagenet.fetch import torrent, torrent_files
from src.imagenet.fetch.aria2 import Aria2Failed, run_aria2
from src.imagenet.fetch.metainfo import read_torrent
from src.imagenet.fetch.notes import notes_in
from src.imagenet.fetch.torrent_files import INFO_HASHES, USUAL, items_of
from tests.conftest import ROOT
from tests.processes import children
from tests.unit.imagenet.fetch.stand_ins import bencode, everything_below, noise, serving, write_torrent

NAME = "ILSVRC2012_img_val.tar"
CONTENT = noise(3 << 20)
HASHES = "0123456789abcdef0123"


def get(origin: Path | str, folder: Path) -> tuple[list[str], list[tuple[int, int]]]:
    told: list[tuple[int, int]] = []
    with notes_in(folder) as notes:
        names = torrent.download(str(origin), folder, notes, lambda done, total: told.append((done, total)))
    return names, told


def test_a_torrent_arrives_whole_and_only_below_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KAGGLE_KEY", HASHES)
    with serving() as server:
        server.files[f"/{NAME}"] = CONTENT
        file = write_torrent(tmp_path / "a.torrent", NAME, CONTENT, [f"{server.url}/{NAME}"])
        names, told = get(file, tmp_path / "out")
        asked = len(server.asked)
        assert get(file, tmp_path / "out")[0] == names  # a second start asks for nothing
        assert len(server.asked) == asked
    assert names == [NAME] and (tmp_path / "out" / NAME).read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert list(home.iterdir()) == []
    assert HASHES.encode() not in everything_below(tmp_path)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {NAME, ".fetch"}


def test_a_magnet_link_finds_its_torrent_and_its_content_with_another_computer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torrent_files, "_DHT", "127.0.0.1:9")  # no test asks the world
    content = noise(1 << 20, 5)
    (tmp_path / "seed").mkdir()
    (tmp_path / "seed" / NAME).write_bytes(content)
    with serving() as tracker:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            port = reserved.getsockname()[1]
        peers = socket.inet_aton("127.0.0.1") + port.to_bytes(2, "big")
        tracker.answers["GET", "/announce"] = (200, {}, bencode({"interval": 2, "peers": peers}))
        announce = f"{tracker.url}/announce"
        file = write_torrent(tmp_path / "a.torrent", NAME, content, [], announce=announce, private=0)
        options = ["--no-conf", "--enable-dht=false", "--check-integrity=true", "--seed-ratio=0", f"--listen-port={port}"]
        seeder = subprocess.Popen(["aria2c", *options, f"--dir={tmp_path}/seed", str(file)], stdout=subprocess.DEVNULL)
        try:
            names, _ = get(f"magnet:?xt=urn:btih:{read_torrent(file).info_hash}&tr={announce}", tmp_path / "out")
        finally:
            seeder.kill()
            seeder.wait()
    assert names == [NAME] and (tmp_path / "out" / NAME).read_bytes() == content


def test_a_file_that_was_damaged_since_is_mended_by_its_pieces(tmp_path: Path) -> None:
    with serving() as server:
        server.files[f"/{NAME}"] = CONTENT
        file = write_torrent(tmp_path / "a.torrent", NAME, CONTENT, [f"{server.url}/{NAME}"])
        get(file, tmp_path / "out")
        with (tmp_path / "out" / NAME).open("r+b") as damaged:
            damaged.seek(1 << 20)
            damaged.write(b"damage")
        sent = server.sent
        get(file, tmp_path / "out")
        assert (tmp_path / "out" / NAME).read_bytes() == CONTENT
        assert server.sent - sent < len(CONTENT) // 2


@pytest.mark.long
def test_a_seed_that_sends_damage_never_makes_a_finished_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torrent, "_STALL_SECONDS", 3)
    with serving() as server:
        server.files[f"/{NAME}"] = b"\0" * len(CONTENT)
        file = write_torrent(tmp_path / "a.torrent", NAME, CONTENT, [f"{server.url}/{NAME}"])
        with pytest.raises(ConfigError, match=rf"{NAME}: .*aria2's exit code"):
            get(file, tmp_path / "out")
    assert not (tmp_path / "out/.fetch/receipts.jsonl").exists()


DOWNLOAD = """
import sys
from pathlib import Path
from src.imagenet.fetch import torrent, torrent_files
from src.imagenet.fetch.notes import notes_in
with notes_in(Path(sys.argv[2])) as notes:
    torrent.download(sys.argv[1], Path(sys.argv[2]), notes, lambda done, total: print(done, flush=True))
"""


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_torrent_continues_and_no_aria2_is_left_behind(tmp_path: Path, kind: signal.Signals) -> None:
    with serving() as server:
        server.files[f"/{NAME}"] = CONTENT
        server.rate = 600_000
        file = write_torrent(tmp_path / "a.torrent", NAME, CONTENT, [f"{server.url}/{NAME}"])
        command = [sys.executable, "-c", DOWNLOAD, str(file), str(tmp_path / "out")]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) > 500_000:
                break
        aria2 = children(process.pid)
        assert len(aria2) == 1
        process.send_signal(kind)
        process.wait()
        process.stdout.close()
        wait_until_gone(aria2[0])
        assert not (tmp_path / "out/.fetch/receipts.jsonl").exists()
        assert (tmp_path / "out" / f"{NAME}.aria2").exists()  # its control file
        server.rate = None
        sent = server.sent
        names, told = get(file, tmp_path / "out")
        assert server.sent - sent < len(CONTENT) - 400_000  # the rest only
    assert names == [NAME] and told[-1] == (len(CONTENT), len(CONTENT))
    assert (tmp_path / "out" / NAME).read_bytes() == CONTENT
    assert not (tmp_path / "out" / f"{NAME}.aria2").exists()


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.1)
    pytest.fail("aria2 lives on")


def test_servers_without_an_address_are_told_at_once(tmp_path: Path) -> None:
    file = write_torrent(tmp_path / "a.torrent", NAME, CONTENT, ["http://no-such-host.invalid/a"])
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"no-such-host\.invalid.*connected to the internet"):
        get(file, tmp_path / "out")
    assert time.monotonic() - started < 30


def test_a_magnet_link_whose_servers_have_no_address_is_told_at_once(tmp_path: Path) -> None:
    link = f"magnet:?xt=urn:btih:{'ab' * 20}&tr=http://no-such-host.invalid/announce?passkey={HASHES}"
    with pytest.raises(ConfigError, match=r"no-such-host\.invalid.*connected to the internet") as caught:
        get(link, tmp_path / "out")
    assert HASHES not in str(caught.value)


def test_a_missing_aria2_is_told_with_the_commands_that_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"apt-get install aria2.*brew install aria2.*conda install"):
        get("ILSVRC2012_img_val.tar", tmp_path / "out")


def test_a_file_of_the_web_that_is_not_there_is_explained_without_its_address(tmp_path: Path) -> None:
    with serving() as server, pytest.raises(Aria2Failed, match="does not have it") as caught:
        run_aria2(f"{server.url}/secret-{HASHES}", tmp_path, ["--max-tries=1"], lambda done: None)
    assert caught.value.code == 3 and HASHES not in str(caught.value)


def test_aria2_is_given_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    fake = bin_folder / "aria2c"
    fake.write_text(f"#!/bin/sh\nenv > {tmp_path}/seen\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    monkeypatch.setenv("HF_TOKEN", HASHES)
    run_aria2("x", tmp_path, [], lambda done: None)
    assert HASHES not in (tmp_path / "seen").read_text()


def test_nothing_is_made_by_a_dry_run(tmp_path: Path) -> None:
    file = write_torrent(tmp_path / "a.torrent", NAME, CONTENT, [])
    lines = torrent.describe(str(file), tmp_path / "out")
    assert NAME in lines[0] and f"{len(CONTENT):,} bytes" in lines[0] and not (tmp_path / "out").exists()
    usual = "\n".join(torrent.describe(None, tmp_path / "out"))
    assert all(INFO_HASHES[name] in usual for name in USUAL) and "ILSVRC2012_devkit_t12.tar.gz" in usual


def test_origins_are_split_at_commas_and_told_where_they_are_wrong(tmp_path: Path) -> None:
    file = write_torrent(tmp_path / "a,b.torrent", NAME, CONTENT, [])
    magnet = "magnet:?xt=urn:btih:" + "ab" * 20
    assert items_of(None) == list(USUAL)
    assert items_of(f"{magnet},ILSVRC2017_CLS-LOC.tar.gz") == [magnet, "ILSVRC2017_CLS-LOC.tar.gz"]
    assert items_of(str(file)) == [str(file)]
    with pytest.raises(ConfigError, match=r"nowhere\.torrent.*is no torrent file, no magnet link"):
        items_of("nowhere.torrent")


def test_the_info_hash_and_the_files_are_read_from_the_torrent(tmp_path: Path) -> None:
    info = {
        "name": "folder",
        "files": [{"length": 3, "path": ["a", "b"]}, {"length": 4, "path": ["c"]}],
        "piece length": 16384,
        "pieces": b"",
    }
    path = tmp_path / "t"
    path.write_bytes(bencode({"info": info, "announce": "http://one.example/a", "announce-list": [["udp://two.example:1/x"]]}))
    found = read_torrent(path)
    assert found.info_hash == hashlib.sha1(bencode(info)).hexdigest()
    assert found.files == (("folder/a/b", 3), ("folder/c", 4)) and found.bytes == 7
    assert set(found.hosts) == {"one.example", "two.example"}


@pytest.mark.parametrize("name", ["..", ".", "", "/etc/passwd", "a/b", ".fetch", "a\0b"])
def test_names_that_would_lie_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "t"
    for info in ({"name": name, "length": 1}, {"name": "ok", "files": [{"length": 1, "path": ["x", name]}]}):
        path.write_bytes(bencode({"info": info}))
        with pytest.raises(ValueError, match="names a file"):
            read_torrent(path)


WHOLE = bencode({"info": {"name": "a", "length": 5, "piece length": 16384, "pieces": b"x" * 20}})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"d",
        b"de",
        b"i5e",
        b"l" * 5000,
        b"d4:infod" * 50,
        WHOLE + b"x",
        b"d4:info3:abce",
        b"99999999999999999999999:a",
        b"d4:infod4:name1:a6:lengthi-5eee",
        b"d4:infod4:name1:a6:lengthie" + b"ee",
        b"d4:infod4:name1:a5:filesleee",
    ],
)
def test_what_is_no_torrent_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "t"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"torrent file|without a|names"):
        read_torrent(path)


def test_a_torrent_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(WHOLE)
    assert read_torrent(path).files == (("a", 5),)
    for length in range(len(WHOLE)):
        path.write_bytes(WHOLE[:length])
        with pytest.raises(ValueError, match=r"torrent file"):
            read_torrent(path)
