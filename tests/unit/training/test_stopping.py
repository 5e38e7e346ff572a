"""A signal sets a flag and nothing else; a second one ends the process; a file named STOP does what a signal does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src.training import stopping
from src.training.stopping import StopRequests

ROOT = Path(__file__).resolve().parents[3]
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@pytest.fixture
def requests(tmp_path: Path) -> StopRequests:
    return StopRequests(tmp_path / "STOP")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_nothing_is_interrupted(requests: StopRequests, number: signal.Signals) -> None:
    with requests.listening():
        assert not requests.pending()
        os.kill(os.getpid(), number)
        assert requests.pending()
        assert requests.pending()
        assert requests.interrupted is (number == signal.SIGINT)


def test_a_signal_passed_on_by_the_launcher_is_the_same_request(requests: StopRequests, monkeypatch: pytest.MonkeyPatch) -> None:
    exits: list[int] = []
    monkeypatch.setattr(stopping.os, "_exit", exits.append)
    with requests.listening():
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1):
            os.kill(os.getpid(), number)
        assert requests.pending()
    assert exits == []


def test_the_old_handlers_come_back(requests: StopRequests) -> None:
    def mine(number: int, frame: object) -> None: ...

    before = {number: signal.signal(number, mine) for number in SIGNALS}
    try:
        with pytest.raises(KeyError), requests.listening():
            assert all(signal.getsignal(number) is not mine for number in SIGNALS)
            raise KeyError
        assert [signal.getsignal(number) for number in SIGNALS] == [mine] * 3
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_stop_file_asks_to_stop(requests: StopRequests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 50.0
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now)
    assert not requests.pending()
    (tmp_path / "STOP").touch()
    assert not requests.pending(), "the file is looked for once a second, not every step"
    now += 1.5
    assert requests.pending()
    assert not requests.interrupted
    (tmp_path / "STOP").unlink()
    assert requests.pending(), "once asked, always asked"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_ends_the_process_at_once(tmp_path: Path, number: signal.Signals) -> None:
    script = """
import sys, time
from pathlib import Path
from src.training import stopping
stopping._SAME_EVENT_SECONDS = 0.2
requests = stopping.StopRequests(Path("STOP"))
try:
    with requests.listening():
        print("ready", flush=True)
        while not requests.pending():
            time.sleep(0.01)
        print("asked", flush=True)
        time.sleep(60)
finally:
    print("left in order", flush=True)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "asked\n"
        time.sleep(0.4)
        start = time.monotonic()
        process.send_signal(number)
        assert process.wait(timeout=20) == 128 + number
        assert time.monotonic() - start < 10
        assert process.stdout.read() == ""
