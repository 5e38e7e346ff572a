"""A signal sets a flag and nothing else; a second one ends the process; a file named STOP does what a signal does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.training import stopping
from src.training.stopping import Preempted, StopRequests, leaving_at_once

ROOT = Path(__file__).resolve().parents[3]
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)


@pytest.fixture(autouse=True)
def _no_nohup() -> Iterator[None]:
    """The tests themselves may run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


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
        time.sleep(0.2)  # for the thread that would end the process
        assert requests.pending()
    assert exits == []


def test_the_old_handlers_come_back(requests: StopRequests) -> None:
    def mine(number: int, frame: object) -> None: ...

    before = {number: signal.signal(number, mine) for number in SIGNALS}
    try:
        with pytest.raises(KeyError), requests.listening():
            assert all(signal.getsignal(number) is not mine for number in SIGNALS)
            raise KeyError
        assert [signal.getsignal(number) for number in SIGNALS] == [mine] * 4
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


@pytest.mark.parametrize(("number", "where"), [(signal.SIGTERM, "python"), (signal.SIGINT, "python"), (signal.SIGUSR1, "C")])
def test_a_second_signal_ends_the_process_at_once(tmp_path: Path, number: signal.Signals, where: str) -> None:
    script = """
import ctypes, sys, threading, time
from pathlib import Path

def wait(where):
    if where == "C":  # like a collective: no signal ends it, and no line of Python runs
        sleeper = threading.Thread(target=time.sleep, args=(60,), daemon=True)
        sleeper.start()
        ctypes.CDLL(None).pthread_join(ctypes.c_ulong(sleeper.ident), None)
    time.sleep(60)

from src.training import stopping
stopping._SAME_EVENT_SECONDS = 0.2
requests = stopping.StopRequests(Path("STOP"))
try:
    with requests.listening():
        print("ready", flush=True)
        while not requests.pending():
            time.sleep(0.01)
        print("asked", flush=True)
        wait(sys.argv[1])
finally:
    print("left in order", flush=True)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", script, where], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
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


def test_a_hang_up_that_is_ignored_stays_ignored(requests: StopRequests) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does
    with requests.listening():
        os.kill(os.getpid(), signal.SIGHUP)
        assert not requests.pending()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_stop_file_of_before_is_not_for_this_process_but_a_newer_one_is(tmp_path: Path) -> None:
    file = tmp_path / "STOP"
    file.touch()
    requests = StopRequests(file)
    assert not requests.pending()
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 1))  # touched again, while the data is opened
    requests.forget_old()
    assert file.exists(), "a newer one is not taken away"
    assert seen_within(requests, seconds=10)
    requests.obeyed()
    assert not file.exists()
    requests.obeyed()


def test_a_stop_file_of_before_is_taken_away(tmp_path: Path) -> None:
    file = tmp_path / "STOP"
    file.touch()
    requests = StopRequests(file)
    requests.forget_old()
    assert not file.exists()
    assert not requests.pending()
    file.touch()
    assert seen_within(requests, seconds=10)


def seen_within(requests: StopRequests, *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not requests.pending() and time.monotonic() < deadline:
        time.sleep(0.05)
    return requests.pending()


def test_an_evaluation_is_broken_off_after_the_batch_at_which_it_was_asked(requests: StopRequests) -> None:
    seen = []
    with requests.listening():
        assert list(requests.until_asked(iter(range(4)))) == [0, 1, 2, 3]
        with pytest.raises(Preempted):
            for number in requests.until_asked(iter(range(9))):
                seen.append(number)
                if number == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
    assert seen == [0, 1, 2]


def test_asked_after_the_last_batch_it_is_broken_off_too(requests: StopRequests) -> None:
    with requests.listening(), pytest.raises(Preempted):
        for _ in requests.until_asked(iter(range(1))):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("number", SIGNALS)
def test_outside_of_the_loop_a_signal_ends_the_process_with_one_line(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    exits: list[int] = []
    monkeypatch.setattr(stopping.os, "_exit", exits.append)
    with leaving_at_once(preempted=75, interrupted=130):
        os.kill(os.getpid(), number)
        assert exits == [130 if number == signal.SIGINT else 75]
    said = capfd.readouterr().err
    assert said.startswith(f"asked to stop ({number.name})") and said.count("\n") == 1
