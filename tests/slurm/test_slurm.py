"""The job scripts on a real Slurm with four pretended A40: what becomes of a training whose job is ended in every way."""

import signal
from pathlib import Path

import pytest

from tests.conftest import MakeFolder
from tests.end_to_end.kill_harness import compare
from tests.slurm.conftest import SMALL, Slurm

CLASSES = tuple(f"class {number}" for number in range(10))
SHORT = (
    *("experiment=demo", "data=fashion_mnist", "model.width=4", "batch_size=32", "eval_batch_size=20", "epochs=30"),
    *("eval_every_epochs=10", "keep_top_k=1", "save_every_steps=7", "track.log_every_steps=2"),
)


@pytest.mark.timeout(900)
def test_a_job_that_is_preempted_killed_and_out_of_time_ends_as_an_undisturbed_one(
    slurm: Slurm, make_folder: MakeFolder, tmp_path: Path
) -> None:
    for split, per_class in (("train", 32), ("val", 4)):
        make_folder(tmp_path / split, CLASSES, per_class, size=28)
    short = (*SHORT, f"data.path={tmp_path}")
    options = ("--time=1:00:00", "--signal=B:USR1@300")
    hurt, log = slurm.submit("4xA40.sh", *short, "run_name=hurt", options=(*options, "--partition=grace")), "4xA40-{}.log"
    log = log.format(hurt)

    # Another job wants the node, and this one is told so: it saves, and goes back into the queue. The other trains undisturbed.
    slurm.wait_until_it_trains(log)
    whole = slurm.submit("4xA40.sh", *short, "run_name=whole", options=("--partition=urgent",))
    slurm.wait("preempted with grace", lambda: slurm.says(hurt, "Restarts") == "1" and slurm.says(hurt, "JobState") == "PENDING")
    assert "stopped and saved. The job is in the queue again." in slurm.log(log)
    assert slurm.status("hurt")["status"] == "preempted"
    slurm.wait_for_state(whole, "COMPLETED")
    assert slurm.status("whole")["status"] == "finished"
    assert ", 4 processes on each of 1 nodes" in slurm.log(f"4xA40-{whole}.log")

    # Another job wants the node, and this one is killed: Slurm itself puts it back.
    slurm.start_again(hurt, partition="main")
    slurm.wait_until_it_trains(log, start=2)
    assert slurm.send_to_ranks("hurt", signal.SIGSTOP) == 4  # they shall not have finished before Slurm kills them
    slurm.submit("write_ffcv.sh", "--help", options=("--partition=urgent", "--gres=gpu:a40:4"))
    slurm.wait("preempted by a kill", lambda: slurm.says(hurt, "Restarts") == "2" and slurm.says(hurt, "JobState") == "PENDING")

    # Its time is nearly over.
    slurm.start_again(hurt)
    slurm.wait_until_it_trains(log, start=3)
    slurm.send_to_ranks("hurt", signal.SIGSTOP)
    slurm.command("scontrol", "update", f"jobid={hurt}", "endtime=now+3minutes")
    slurm.wait("USR1", lambda: "the time is nearly over" in slurm.last_start(log))
    slurm.send_to_ranks("hurt", signal.SIGCONT)
    slurm.wait("requeued in time", lambda: slurm.says(hurt, "Restarts") == "3" and slurm.says(hurt, "JobState") == "PENDING")
    assert "stopped and saved. The job is in the queue again." in slurm.last_start(log)

    slurm.start_again(hurt, timelimit="60")
    slurm.wait_for_state(hurt, "COMPLETED")
    assert compare(slurm.runs / "whole", slurm.runs / "hurt") == []


def test_wrong_arguments_fail_with_the_message_in_the_log_and_are_not_tried_again(slurm: Slurm) -> None:
    job = slurm.submit("4xA40.sh", "experiment=demo", "epochz=3")
    slurm.wait_for_state(job, "FAILED")
    assert slurm.says(job, "ExitCode") == "2:0"
    assert slurm.says(job, "Restarts") == "0"
    assert "epochz = 3: no such key. Did you mean epochs?" in slurm.log(f"4xA40-{job}.log")
    assert job not in slurm.queue()


def test_a_training_that_fails_fails_its_job_and_is_not_tried_again(slurm: Slurm, tmp_path: Path) -> None:
    job = slurm.submit("4xA40.sh", "experiment=demo", f"data.path={tmp_path}/nowhere", options=("--gres=none",), MAX_RESTARTS="0")
    slurm.wait_for_state(job, "FAILED")
    assert slurm.says(job, "Restarts") == "0"
    log = slurm.log(f"4xA40-{job}.log")
    assert f"{tmp_path}/nowhere" in log
    assert "The job does not run again." in log


def test_scancel_ends_a_training_for_good(slurm: Slurm) -> None:
    job = slurm.submit("4xA40.sh", "experiment=null", *SMALL, "run_name=cancelled", options=("--gres=none",))
    slurm.wait_until_it_trains(f"4xA40-{job}.log")
    slurm.command("scancel", job)
    slurm.wait_for_state(job, "CANCELLED")
    assert slurm.says(job, "Restarts") == "0"
    assert job not in slurm.queue()


def test_a_stop_file_ends_a_training_and_its_job_is_neither_completed_nor_tried_again(slurm: Slurm) -> None:
    job = slurm.submit("4xA40.sh", "experiment=null", *SMALL, "run_name=by_hand", options=("--gres=none",))
    slurm.wait_until_it_trains(f"4xA40-{job}.log")
    (slurm.runs / "by_hand/STOP").touch()
    slurm.wait_for_state(job, "FAILED")
    assert slurm.says(job, "ExitCode") == "75:0"
    assert slurm.status("by_hand")["status"] == "preempted"
    assert slurm.says(job, "Restarts") == "0"
