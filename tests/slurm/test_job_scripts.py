"""The other job scripts on a real Slurm: chained jobs, arrays, several nodes (of which there is one), the FFCV writer."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import MakeFolder
from tests.slurm.conftest import ROOT, SMALL, Slurm

ONCE = ("--gres=none", "--time=0:50:00")


def test_scripts_have_nothing_that_shellcheck_minds() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    scripts = [*sorted(ROOT.glob("scripts/**/*.sh")), *sorted(ROOT.glob("tests/**/*.sh")), ROOT / ".ci/run"]
    done = subprocess.run(["shellcheck", *scripts], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.long
def test_where_requeueing_is_forbidden_the_same_job_is_submitted_anew(slurm: Slurm) -> None:
    arguments = ("experiment=null", *SMALL, "run_name=chained")
    first = slurm.submit("4xA40.sh", *arguments, options=(*ONCE, "--no-requeue", "--job-name=links", "--cpus-per-task=7"))
    log = f"links-{first}.log"
    slurm.wait_until_it_trains(log)
    slurm.command("scancel", "--batch", "--signal=USR1", first)
    slurm.wait_for_state(first, "FAILED")
    assert slurm.says(first, "ExitCode") == "75:0"
    (second,) = (job for job in slurm.queue() if slurm.says(job, "JobName") == "links")
    for key in ("TimeLimit", "CPUs/Task", "Partition", "StdOut", "WorkDir", "MinMemoryNode"):
        assert slurm.says(second, key) == slurm.says(first, key), key
    slurm.wait_until_it_trains(log, start=2)
    slurm.command("scancel", second)
    slurm.wait_for_state(second, "CANCELLED")


@pytest.mark.long
@pytest.mark.parametrize("setting", [{"REQUEUE": "never"}, {"MAX_REQUEUES": "0"}])
def test_a_job_goes_on_only_as_often_as_it_may(slurm: Slurm, setting: dict[str, str]) -> None:
    (name,) = setting
    job = slurm.submit("4xA40.sh", "experiment=null", *SMALL, f"run_name={name}", options=(*ONCE, f"--job-name={name}"), **setting)
    slurm.wait_until_it_trains(f"{name}-{job}.log")
    slurm.command("scancel", "--batch", "--signal=USR1", job)
    slurm.wait_for_state(job, "FAILED")
    assert slurm.says(job, "ExitCode") == "75:0"
    assert [other for other in slurm.queue() if slurm.says(other, "JobName") == name] == []


@pytest.mark.long
def test_tasks_of_an_array_are_stopped_and_requeued_alone(slurm: Slurm, tmp_path: Path) -> None:
    sweep = tmp_path / "settings.txt"
    sweep.write_text("epochs=2 run_name=one\nseed=5 run_name=two\n")
    options = (*ONCE, "--array=1-2")
    array = slurm.submit("array.sh", "experiment=null", *SMALL, options=options, SWEEP=str(sweep))
    logs = [f"array-{array}_{task}.log" for task in (1, 2)]
    slurm.wait_until_it_trains(logs[1])
    slurm.wait("task 1 completed", lambda: slurm.says(f"{array}_1", "JobState") == "COMPLETED")
    slurm.command("scancel", "--batch", "--signal=USR1", f"{array}_2")
    slurm.wait("task 2 requeued", lambda: slurm.says(f"{array}_2", "Restarts") == "1" and f"{array}_2" in slurm.queue())
    assert slurm.says(f"{array}_1", "JobState") == "COMPLETED"
    assert slurm.status("one")["status"] == "finished"
    assert slurm.status("two")["status"] == "preempted"
    slurm.command("scancel", array)


@pytest.mark.long
def test_an_array_is_over_seeds_unless_told_otherwise(slurm: Slurm) -> None:
    arguments = ("experiment=null", *SMALL, "epochs=2", "dry_run=true")
    array = slurm.submit("array.sh", *arguments, options=(*ONCE, "--array=3"))
    slurm.wait("seed 3", lambda: slurm.says(f"{array}_3", "JobState") == "COMPLETED")
    assert "-s3-" in slurm.log(f"array-{array}_3.log")
    array = slurm.submit("array.sh", *arguments, "seed=1", options=(*ONCE, "--array=3"))
    slurm.wait("a seed beside it", lambda: slurm.says(f"{array}_3", "JobState") == "FAILED")
    assert "leave seed= away" in slurm.log(f"array-{array}_3.log")


@pytest.mark.long
def test_multi_node_trains_two_processes_that_meet_at_the_first_node(slurm: Slurm) -> None:
    job = slurm.submit(
        "multi_node.sh", "experiment=null", *SMALL, "epochs=2", "run_name=nodes", options=(*ONCE, "--nodes=1"), NPROC="2"
    )
    slurm.wait_for_state(job, "COMPLETED")
    assert slurm.status("nodes")["status"] == "finished"


@pytest.mark.long
def test_write_ffcv_writes_both_splits(slurm: Slurm, make_folder: MakeFolder, tmp_path: Path) -> None:
    for split in ("train", "val"):
        make_folder(tmp_path / "data" / split, suffix=".jpg")
    job = slurm.submit("write_ffcv.sh", f"data.path={tmp_path}/data", f"target={tmp_path}/ffcv")
    slurm.wait_for_state(job, "COMPLETED")
    assert {file.name for file in (tmp_path / "ffcv").glob("*.beton")} == {"train.beton", "val.beton"}
