"""A word goes round outside of training, and a silent rank is missed after the short time."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from src import peers
from tests.conftest import ROOT


def two_ranks(folder: Path, module: str, *arguments: str) -> list[dict[str, Any]]:
    """Run a module on two ranks; return what they wrote."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    shared |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module, str(folder), *arguments]
    ranks = [
        subprocess.Popen(command, cwd=ROOT, env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    try:
        for process in ranks:
            _, said = process.communicate(timeout=200)
            assert process.returncode == 0, said.decode()[-3000:]
    finally:
        for process in ranks:
            process.kill()
    return [json.loads(file.read_text()) for file in sorted(folder.glob("rank_*.json"))]


def test_an_evaluation_is_broken_off_on_every_rank_within_seconds(tmp_path: Path) -> None:
    told = two_ranks(tmp_path, "tests.distributed.broken_off")
    assert [one["undisturbed"] for one in told] == [[12, True], [1, True]]
    for one in told:
        assert one["asked"][0] == "preempted"
        assert one["asked"][2] < 20, "rank 0 has a minute of batches left"
    assert told[0]["both know"] == [True, False] and told[1]["both know"] == [True, True]


@pytest.mark.parametrize("group", ["default", "vote"])
def test_a_silent_rank_is_missed_soon_after_the_first_steps(tmp_path: Path, group: str) -> None:
    (told,) = two_ranks(tmp_path, "tests.distributed.silent_rank", group)
    assert told["error"] == "LostRank" and told["text"].startswith("another rank is gone or silent")
    assert 1.5 < told["seconds"] < 30


def test_alone_nobody_is_told_and_nobody_is_waited_for() -> None:
    peers.tell("stop")
    assert not peers.told("stop")
    assert peers.meet(lambda: True) and not peers.meet(lambda: False)
    peers.wait_at_most(1.0)


def test_the_flight_recorder_is_on_unless_the_user_says_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in os.environ if name.startswith(("TORCH_FR_", "TORCH_NCCL_"))]
    for name in names:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TORCH_NCCL_TRACE_BUFFER_SIZE", "77")  # the older name
    monkeypatch.setenv("TORCH_NCCL_DUMP_ON_TIMEOUT", "0")
    monkeypatch.setenv("TORCH_FR_DUMP_TEMP_FILE", "")
    monkeypatch.delenv("TORCH_FR_DUMP_TEMP_FILE")
    peers.record_flights(tmp_path / "flight_recorder")
    monkeypatch.setenv("TORCH_FR_DUMP_TEMP_FILE", os.environ["TORCH_FR_DUMP_TEMP_FILE"])  # gone after the test
    assert "TORCH_FR_BUFFER_SIZE" not in os.environ and os.environ["TORCH_NCCL_DUMP_ON_TIMEOUT"] == "0"
    assert os.environ["TORCH_FR_DUMP_TEMP_FILE"] == f"{tmp_path}/flight_recorder/rank_"


def test_an_error_is_handed_to_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    try:
        raise KeyError("x")
    except KeyError as error:
        peers.report(error, known=False)
        assert "test_an_error_is_handed_to_torchrun" in json.loads(file.read_text())["message"]["extraInfo"]["py_callstack"]
        peers.report(error, known=True)
    assert json.loads(file.read_text())["message"] == "'x'"
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE")
    file.unlink()
    peers.report(KeyError("x"), known=True)
    assert not file.exists()
