"""track=tensorboard with the real package: what TensorBoard reads is metrics.jsonl, whatever died, and its death costs nothing."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import LAUNCHER_VARIABLES, ROOT
from tests.end_to_end.tracked_training import Training, assert_same, warnings
from tests.network import cut_off, reached_for, traced
from tests.tensorboard_file import assert_is_metrics_jsonl, read_back, scalars

pytest.importorskip("tensorboard")
TRACKER = "src.tracking.tensorboard_tracker"
TENSORBOARD = "track=tensorboard"


def has_events(training: Training) -> Callable[[], bool]:
    def look() -> bool:
        files = list((training.folder / "tensorboard").glob("events.out.tfevents.*"))
        return bool(files) and len(scalars(training.folder)) > 1

    return look


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An undisturbed run that is told to nobody."""
    training = Training(tmp_path_factory.mktemp("whole"), "whole").start()
    assert training.finish()[0] == 0
    yield training.folder


@pytest.mark.long  # test_wandb.py kills both trackers at once, always
@pytest.mark.parametrize("tracker_dies_too", [False, True])
def test_killed_and_resumed_each_step_of_each_key_stands_once(whole: Path, tmp_path: Path, tracker_dies_too: bool) -> None:
    training = Training(tmp_path, "killed", TENSORBOARD).start()
    training.stand_still_until(has_events(training), rows=16)  # past the last save: some will be trained and told again
    training.kill(*(training.trackers(TRACKER) if tracker_dies_too else ()))
    code, outcome, text = training.start().finish()
    assert (code, outcome["status"]) == (0, "finished"), text
    assert "resuming from" in text and not warnings(text), text
    assert_is_metrics_jsonl(training)
    assert_same(whole, training.folder)
    assert len(list((training.folder / "tensorboard").glob("events.out.tfevents.*"))) == 1
    accumulator = read_back(training.folder)
    config = accumulator.Tensors("config")[0].tensor_proto.string_val[0].decode()
    assert yaml.safe_load(config)["optim.peak_lr"] == 0.1 and "runs_dir" not in config
    assert "_hparams_/session_start_info" in accumulator.Tags()["tensors"]


@pytest.mark.long  # its cousin is the full disk
def test_its_process_killed_in_the_middle_costs_one_warning_and_the_next_start_mends_the_files(whole: Path, tmp_path: Path) -> None:
    training = Training(tmp_path, "hurt", TENSORBOARD).start()
    training.stand_still_until(has_events(training))
    (pid,) = training.trackers(TRACKER)
    os.kill(pid, signal.SIGKILL)
    training.signal(signal.SIGCONT)
    code, outcome, text = training.finish()
    assert (code, outcome["status"]) == (0, "finished"), text
    assert len(warnings(text)) == 1 and "tensorboard is switched off" in warnings(text)[0] and "Traceback" not in text, text
    assert_same(whole, training.folder)
    assert len(scalars(training.folder)) < 40
    assert training.start().finish()[0] == 0
    assert_is_metrics_jsonl(training)


@pytest.mark.slow
def test_a_full_disk_costs_one_warning_and_the_next_start_mends_the_files(tmp_path: Path) -> None:
    training = Training(tmp_path, "full", TENSORBOARD).start()
    training.stand_still_until(has_events(training))
    (pid,) = training.trackers(TRACKER)
    (file,) = (training.folder / "tensorboard").glob("events.out.tfevents.*")
    size = file.stat().st_size + 10
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, size))  # in the middle of an event
    training.signal(signal.SIGCONT)
    code, outcome, text = training.finish()
    assert (code, outcome["status"]) == (0, "finished"), text
    assert len(warnings(text)) == 1 and "File too large" in warnings(text)[0] and "Traceback" not in text, text
    assert training.start().finish()[0] == 0
    assert_is_metrics_jsonl(training)


def run_tracker(folder: Path, *, command: Callable[..., list[str]] = lambda *words: [*words]) -> str:
    """Run the tracker alone on a finished run's folder; return what it wrote to its log."""
    order = f'{{"folder": "{folder}", "finish_seconds": 60, "name": "r", "config": {{"seed": 1, "tags": ["a"], "none": null}}}}\n'
    kept = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    (folder / "tensorboard").mkdir(exist_ok=True)
    done = subprocess.run(
        command(sys.executable, "-m", TRACKER), cwd=ROOT, env=kept, input=order, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_it_needs_no_network_and_reaches_for_none(tmp_path: Path) -> None:
    rows = [f'{{"kind": "train", "step": {step}, "epoch": 0, "train/loss": 1.5}}' for step in (4, 8)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*rows, "no row", '{"kind": "tr']))
    log = tmp_path / "strace.log"
    run_tracker(tmp_path, command=lambda *words: cut_off(*traced(log, *words)))
    assert not reached_for(log)
    assert scalars(tmp_path) == {step: {"epoch": 0, "train/loss": 1.5} for step in (4, 8)}, "the last window did not wait in vain"


def test_each_start_writes_all_anew_and_a_reader_of_both_files_sees_each_step_once(tmp_path: Path) -> None:
    row = '{"kind": "train", "step": %d, "epoch": 0, "train/loss": %f}\n'
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(row % (step, 1.0) for step in (4, 8, 12)))
    run_tracker(tmp_path)
    (first,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    kept = first.read_bytes()
    metrics.write_text(row % (4, 1.0) + row % (8, 2.0))  # cut back by a resumed run, and trained again
    run_tracker(tmp_path)
    (second,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    assert second != first
    wanted = {4: {"epoch": 0, "train/loss": 1.0}, 8: {"epoch": 0, "train/loss": 2.0}}
    assert scalars(tmp_path) == wanted
    first.with_name(first.name.replace("tfevents.", "tfevents.0")).write_bytes(kept)  # as if its process had died before deleting
    assert scalars(tmp_path) == wanted


def test_a_long_run_is_written_whole(tmp_path: Path) -> None:
    row = ", ".join(f'"train/figure_{number}": {number}.5' for number in range(15))
    lines = [f'{{"kind": "train", "step": {50 * number}, "epoch": 0, {row}}}' for number in range(1, 2001)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    run_tracker(tmp_path)
    assert len(scalars(tmp_path)) == 2000
