"""A tracker in a process of its own: whatever happens to it, the training is neither held up nor told more than once."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from src.batch import Record
from src.config import load
from src.tracking import detached
from src.tracking.build import more_trackers, tracker_problems
from src.tracking.detached import DetachedTracker
from src.tracking.follower import Rows, merged
from src.tracking.wandb_tracker import Sent
from tests.processes import children
from tests.wandb_file import history

RECORD = Record("train", 4, 0, {"train/loss": 1.5})
ROW = {"kind": "train", "step": 4, "epoch": 0, "train/loss": 1.5}


@pytest.fixture
def told() -> Iterator[list[tuple[str, str]]]:
    """What was said, as (level, message)."""
    messages: list[tuple[str, str]] = []
    logger.remove()  # the console: what else is printed is not ours
    number = logger.add(lambda message: messages.append((message.record["level"].name, message.record["message"])))
    yield messages
    logger.remove(number)


@pytest.fixture
def process_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], DetachedTracker]:
    """Start a tracker whose process runs the given lines; `order` is what it was told."""

    def start(lines: str, **order: Any) -> DetachedTracker:
        program = f"import json, os, signal, sys, time\norder = json.loads(sys.stdin.buffer.readline())\n{lines}\n"
        (tmp_path / "somebody.py").write_text(program)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return DetachedTracker("somebody", "somebody", order, log=tmp_path / "log" / "output.log", own_variables="MINE_")

    return start


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def log_until_told(tracker: DetachedTracker, told: list[tuple[str, str]]) -> None:
    def logged() -> bool:
        tracker.log(RECORD)
        return bool(told)

    wait_until(logged)


def test_it_gets_its_order_and_what_it_says_is_told(
    process_of: Callable[..., DetachedTracker], told: list[tuple[str, str]]
) -> None:
    tracker = process_of('print(json.dumps({"say": order["name"]}), flush=True); sys.stdin.read()', name="a run")
    log_until_told(tracker, told)
    tracker.close()
    assert told == [("INFO", "somebody  a run")]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("sys.exit(5)", "code 5"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "code -9"),
        ('print(json.dumps({"why": "no network; api_key=SENTINEL"}), flush=True); sys.exit(1)', "no network; api_key=***"),
        ("raise OSError('a traceback of its own')", "code 1"),
    ],
)
def test_its_early_end_is_one_warning(
    process_of: Callable[..., DetachedTracker],
    told: list[tuple[str, str]],
    capfd: pytest.CaptureFixture[str],
    lines: str,
    reason: str,
) -> None:
    tracker = process_of(lines)
    log_until_told(tracker, told)
    for _ in range(3):
        tracker.log(RECORD)
    tracker.close()
    assert [level for level, _ in told] == ["WARNING"] and reason in told[0][1] and "SENTINEL" not in told[0][1]
    assert capfd.readouterr() == ("", "")


def test_one_that_hangs_is_not_waited_for_long(
    process_of: Callable[..., DetachedTracker], told: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detached, "_WAIT_SECONDS", 0.5)
    tracker = process_of('print(json.dumps({"say": str(os.getpid())}), flush=True); time.sleep(1000)')
    log_until_told(tracker, told)
    pid = int(told[0][1].split()[-1])
    os.kill(pid, signal.SIGSTOP)
    start = time.monotonic()
    for _ in range(100):
        tracker.log(RECORD)
    assert time.monotonic() - start < 5
    tracker.close()
    assert [level for level, _ in told] == ["INFO", "WARNING"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_it_does_not_see_the_secrets_of_others(
    process_of: Callable[..., DetachedTracker], told: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "SENTINEL")
    monkeypatch.setenv("MINE_API_KEY", "mine")
    tracker = process_of('print(json.dumps({"say": " ".join(os.environ.values())}), flush=True)')
    log_until_told(tracker, told)
    tracker.close()
    assert "mine" in told[0][1] and "SENTINEL" not in told[0][1]


def test_a_process_that_cannot_be_started_is_one_warning(
    tmp_path: Path, told: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    tracker = DetachedTracker("somebody", "somebody", {}, log=tmp_path / "wandb" / "output.log", own_variables="MINE_")
    tracker.log(RECORD)
    tracker.close()
    assert [level for level, _ in told] == ["WARNING"]


def test_a_missing_package_is_refused_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(["data=synthetic", "track=wandb"])
    assert not tracker_problems(load(["data=synthetic"]).track)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    (problem,) = tracker_problems(config.track)
    assert "pip install -e '.[wandb]'" in str(problem)


def real(folder: Path, *settings: str) -> DetachedTracker:
    pytest.importorskip("wandb")
    folder.mkdir(exist_ok=True)
    (tracker,) = more_trackers(load(["data=synthetic", "track=wandb", *settings]), folder)
    assert isinstance(tracker, DetachedTracker)
    return tracker


def test_wandbs_service_stopped_by_a_signal_is_given_up(
    tmp_path: Path, told: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.tracking.build.FINISH_SECONDS", 1.0)
    tracker = real(tmp_path, "track.mode=offline")
    log_until_told(tracker, told)
    assert tracker._process is not None
    services = children(tracker._process.pid)
    assert services
    for pid in services:
        os.kill(pid, signal.SIGSTOP)
    (tmp_path / "metrics.jsonl").write_text(json.dumps(ROW) + "\n" + json.dumps(ROW | {"step": 8}) + "\n")
    tracker.close()
    assert [level for level, _ in told] == ["INFO", "WARNING"] and "within 1 seconds" in told[1][1]
    wait_until(lambda: not any(Path(f"/proc/{pid}/stat").exists() for pid in services))


def test_a_server_that_does_not_answer_is_given_up_and_later_gets_every_row(
    tmp_path: Path, told: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.tracking.build.FINISH_SECONDS", 1.0)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    (tmp_path / "metrics.jsonl").write_text(json.dumps(ROW) + "\n" + json.dumps(ROW | {"kind": "epoch"}) + "\n")
    tracker = real(tmp_path)  # auto: there is a key
    start = time.monotonic()
    tracker.log(RECORD)
    tracker.close()
    assert time.monotonic() - start < 25
    assert [level for level, _ in told] == ["WARNING"]
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setattr("src.tracking.build.FINISH_SECONDS", 15.0)
    tracker = real(tmp_path)
    tracker.close()
    assert [row["step"] for row in history(tmp_path / "wandb")] == [4]


def test_rows_of_a_step_go_together_and_none_goes_twice(tmp_path: Path) -> None:
    file, sent = tmp_path / "metrics.jsonl", Sent(tmp_path / "sent.json")
    rows = Rows(file, sent.has)
    assert not list(rows.new_steps()), "there is no file yet"
    train, later, epoch = ROW, ROW | {"step": 8}, {"kind": "epoch", "step": 8, "epoch": 0, "train/loss": 2.0, "val/acc1": 50.0}

    def add(text: str) -> None:
        with open(file, "a") as stream:
            stream.write(text)

    add(json.dumps(train) + "\n" + json.dumps(later)[:20])
    assert not list(rows.new_steps()), "a row of the same step may follow"
    add(json.dumps(later)[20:] + "\n")
    assert list(rows.new_steps()) == [[train]]
    sent.note([train])
    again, rows = Sent(tmp_path / "sent.json"), Rows(file, Sent(tmp_path / "sent.json").has)
    assert again.id == sent.id and not list(rows.new_steps())
    add(json.dumps(epoch) + "\n")
    ((one, other),) = rows.new_steps()
    assert merged([one, other]) == {"epoch": 0, "train/loss": 1.5, "train_epoch/loss": 2.0, "val/acc1": 50.0}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": "a"}', '{"id": "a", "train": "x", "epoch": 0}', "\x00\xff"])
def test_a_damaged_note_of_what_was_sent_begins_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "sent.json").write_text(text)
    assert not Sent(tmp_path / "sent.json").has(ROW)


def test_what_wandb_has_not_kept_is_sent_again_and_what_it_has_is_not(tmp_path: Path) -> None:
    """A killed process had handed over more than wandb's file holds; and where files were cleared away, the note counts."""
    pytest.importorskip("wandb")
    sent = Sent(tmp_path / "sent.json")
    sent.begin()
    sent.note([ROW | {"step": 12}])
    again = Sent(tmp_path / "sent.json")
    again.begin()
    assert again.has(ROW | {"step": 12}), "there is no file of wandb's: it was sent and cleared away"
    folder = tmp_path / f"offline-run-20260101_000000-{sent.id}"
    folder.mkdir()
    (folder / f"run-{sent.id}.wandb").write_bytes(b":W&B\x00\x00\x00" + b"\x07" * 5)
    again.note([ROW | {"step": 20}])
    third = Sent(tmp_path / "sent.json")
    third.begin()
    assert third.has(ROW | {"step": 12}) and not third.has(ROW | {"step": 16}), "from where the process that was killed began"
