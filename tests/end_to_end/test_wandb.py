"""track=wandb with the real package, offline: one complete run over several processes, and its death costs nothing."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.tracking.machine_figures import repeatable
from tests.end_to_end.tracked_training import Training, assert_same, told_once, warnings
from tests.tensorboard_file import assert_is_metrics_jsonl
from tests.wandb_file import history, records

pytest.importorskip("wandb")
pytest.importorskip("tensorboard")
TENSORBOARD = "src.tracking.tensorboard_tracker"
WANDB = ("track=wandb", "track.mode=offline", "track.project=tests", "track.tags=[a,b]")


def wait_until_sending(training: Training) -> None:
    training.stand_still_until(lambda: training.sent().get("train", 0) > 0)
    training.signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An undisturbed run without wandb."""
    training = Training(tmp_path_factory.mktemp("whole"), "whole").start()
    assert training.finish()[0] == 0
    yield training.folder


@pytest.mark.slow
def test_a_stopped_and_resumed_run_is_one_complete_run_at_wandb(whole: Path, tmp_path: Path) -> None:
    training = Training(tmp_path, "resumed", *WANDB).start()
    wait_until_sending(training)
    training.signal(signal.SIGTERM)
    asked = time.monotonic()
    code, outcome, text = training.finish()
    assert (code, outcome["status"]) == (75, "preempted"), text
    assert time.monotonic() - asked < 20, "torchrun and Slurm leave 30 seconds"
    code, outcome, text = training.start().finish()
    assert (code, outcome["status"]) == (0, "finished"), text
    assert_same(whole, training.folder)
    assert f"wandb sync {training.folder}" in text and not warnings(text)

    assert_one_complete_run(training, processes=2)
    runs = [record.run for record in records(training.folder / "wandb") if record.WhichOneof("record_type") == "run"]
    assert {(run.display_name, run.project, *run.tags) for run in runs} == {("resumed", "tests", "a", "b")}
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["optim.peak_lr"] == 0.1 and not {"runs_dir", "resume", "data.workers"} & config.keys()
    assert not any(run.host or run.git.remote_url or run.git.commit for run in runs)


def assert_one_complete_run(training: Training, *, processes: int) -> None:
    """What wandb has is metrics.jsonl: each step once and in order, all keys of it, under one id."""
    assert len(list((training.folder / "wandb").glob("offline-run-*"))) == processes
    sent, wanted = history(training.folder / "wandb"), told_once(training.rows())
    assert [row["step"] for row in sent] == sorted(wanted), "each step once, in order"
    for row in sent:
        assert row.keys() - {"step"} == wanted[int(row["step"])].keys(), row["step"]
        # What was told before it was trained again has the times of then; all else is the same.
        assert repeatable(row) == pytest.approx(repeatable(wanted[int(row["step"])]) | {"step": row["step"]}), row["step"]
    assert len(sent) == 40 and {"train/loss", "val/acc1", "time/tflops_per_second", "memory/peak_host_gib"} <= wanted[20].keys()
    runs = [record.run for record in records(training.folder / "wandb") if record.WhichOneof("record_type") == "run"]
    assert len(runs) == processes and {run.run_id for run in runs} == {training.sent()["id"]}


@pytest.mark.slow
@pytest.mark.parametrize("all_die", [pytest.param(False, marks=pytest.mark.long), True])
def test_a_killed_and_resumed_run_is_one_complete_run_at_wandb(whole: Path, tmp_path: Path, all_die: bool) -> None:
    """By SIGKILL: of the training alone, or of all that tell of it in the same moment, as when a node dies. TensorBoard beside."""
    training = Training(tmp_path, "killed", *WANDB, "track.tensorboard=true").start()
    training.stand_still_until(lambda: training.sent().get("train", 0) > 50, rows=16)
    teller = [*training.services(), *training.trackers("src.tracking.wandb_tracker"), *training.trackers(TENSORBOARD)]
    assert len(teller) >= 3
    training.kill(*(teller if all_die else ()))
    code, outcome, text = training.start().finish()
    assert (code, outcome["status"]) == (0, "finished"), text
    assert_same(whole, training.folder)
    assert_one_complete_run(training, processes=2)
    assert_is_metrics_jsonl(training)
    assert not warnings(text), text


@pytest.mark.slow
def test_its_service_killed_in_the_middle_costs_one_warning(whole: Path, tmp_path: Path) -> None:
    training = Training(tmp_path, "killed", *WANDB).start()
    wait_until_sending(training)
    services = training.services()
    assert services
    for pid in services:
        os.kill(pid, signal.SIGKILL)
    code, outcome, text = training.finish()
    assert (code, outcome["status"]) == (0, "finished"), text
    assert len(warnings(text)) == 1 and "wandb is switched off" in warnings(text)[0], text
    assert "Traceback" not in text
    assert_same(whole, training.folder)
