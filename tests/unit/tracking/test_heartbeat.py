"""Where locks do not reach, a heartbeat tells who lives: a living holder is named, a dead one's folder is taken over."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from src.config import Config, ConfigError
from src.tracking import heartbeat, run_folder
from src.tracking.heartbeat import Heartbeat, HeldError
from src.tracking.run_folder import RunFolder

Configure = Callable[..., Config]
ROOT = Path(__file__).resolve().parents[3]
# Holds a folder on a file system without locks until its standard input ends.
HOLD = """
import sys
from pathlib import Path
from src.config import load
from src.tracking import heartbeat, run_folder

def refuse(*_):
    raise OSError(37, "No locks available")

run_folder.fcntl.flock = refuse
heartbeat.INTERVAL = 0.1
folder = run_folder.RunFolder(Path(sys.argv[1]), load(["data=synthetic", "model=small_resnet"]))
print("held", flush=True)
sys.stdin.read()
folder.close()
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.05)
    monkeypatch.setattr(heartbeat, "WATCH", 0.5)
    monkeypatch.setattr(heartbeat, "SETTLE", 0.3)


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(run_folder.fcntl, "flock", refuse)


def hold(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(path)]
    holder = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def left_behind(path: Path, **more: object) -> None:
    """A heartbeat of a process that is gone."""
    path.write_text(json.dumps({"host": "node7", "pid": 41, "boot": "another", "token": "t", "count": 3} | more))


@pytest.mark.usefixtures("no_locks")
def test_a_living_holder_is_named_and_a_dead_ones_folder_is_taken_over(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    with hold(tmp_path / "r") as holder:
        monkeypatch.setattr(heartbeat, "WATCH", 60.0)  # on a busy machine a beat may be late; the first one seen ends it
        with pytest.raises(ConfigError) as caught:
            RunFolder(tmp_path / "r", configure())
        assert f"run_name = 'r': is in use by process {holder.pid} on {socket.gethostname()}" in str(caught.value)
        assert (tmp_path / "r" / ".heartbeat").exists(), "the refused one took the holder's heartbeat away"
        holder.kill()
        holder.wait()
        monkeypatch.setattr(heartbeat, "WATCH", 0.5)
        said.clear()
        RunFolder(tmp_path / "r", configure()).close()
    assert f"was left by process {holder.pid} on {socket.gethostname()}: watching for 0 s whether it lives" in said[1]
    assert not (tmp_path / "r" / ".heartbeat").exists()


@pytest.mark.usefixtures("no_locks")
def test_a_holder_that_stood_still_gives_way_to_who_took_over(tmp_path: Path, configure: Configure) -> None:
    with hold(tmp_path / "r") as holder:
        os.kill(holder.pid, signal.SIGSTOP)
        folder = RunFolder(tmp_path / "r", configure())
        os.kill(holder.pid, signal.SIGCONT)
        assert holder.wait(timeout=60) == 1
        assert holder.stderr is not None
        assert f"was taken over by process {os.getpid()} on" in holder.stderr.read()
        folder.close()


def test_after_a_crash_on_the_same_kernel_nothing_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "WATCH", 3600.0)
    left_behind(tmp_path / "beat", boot=heartbeat.boot_id())
    Heartbeat(tmp_path / "beat", locked=True).close()


def test_a_lock_that_stays_on_its_node_is_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "WATCH", 60.0)
    monkeypatch.setattr(heartbeat, "boot_id", lambda: "this node")
    here = Heartbeat(tmp_path / "beat", locked=True)
    monkeypatch.setattr(heartbeat, "boot_id", lambda: "that node")
    with pytest.raises(HeldError, match=f"process {os.getpid()} on"):
        Heartbeat(tmp_path / "beat", locked=True)
    here.close()
    Heartbeat(tmp_path / "beat", locked=True).close()
    assert not (tmp_path / "beat").exists()


def test_who_waits_takes_it_as_soon_as_the_holder_ends_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "WATCH", 3600.0)
    left_behind(tmp_path / "beat")
    threading.Timer(0.3, (tmp_path / "beat").unlink).start()
    Heartbeat(tmp_path / "beat", locked=False).close()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"7", b'{"boot": []}', b"[" * 100_000])
def test_a_damaged_heartbeat_is_watched_like_any_other(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "beat").write_bytes(content)
    started = time.monotonic()
    Heartbeat(tmp_path / "beat", locked=True).close()
    assert time.monotonic() - started >= 0.5
    assert not (tmp_path / "beat").exists()


def test_of_several_that_take_over_at_once_one_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "SETTLE", 2.0)
    left_behind(tmp_path / "beat")
    taken: list[Heartbeat] = []
    refused: list[str] = []

    def take() -> None:
        try:
            taken.append(Heartbeat(tmp_path / "beat", locked=False))
        except HeldError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), len(refused)) == (1, 3)
    taken[0].close()


def test_it_beats(tmp_path: Path) -> None:
    beats = Heartbeat(tmp_path / "beat", locked=False)
    first = json.loads((tmp_path / "beat").read_bytes())
    deadline = time.monotonic() + 60
    while (now := (tmp_path / "beat").read_bytes()) == b"" or json.loads(now)["count"] == first["count"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (tmp_path / "beat").unlink()  # somebody tidied up
    while not (tmp_path / "beat").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    beats.close()
    assert not (tmp_path / "beat").exists()


def test_a_folder_where_it_cannot_be_written_is_told(tmp_path: Path, configure: Configure, said: list[str]) -> None:
    (tmp_path / "r" / ".heartbeat").mkdir(parents=True)
    RunFolder(tmp_path / "r", configure()).close()
    file = tmp_path / "r" / ".heartbeat"
    assert said == [f"WARNING {file} cannot be written (Is a directory): take care that no second run uses this folder."]
