"""docs/slurm.md, typed on a real Slurm of one node with four pretended A40: its jobs train, are stopped, requeued, cancelled."""

import re
import sys
from pathlib import Path

import pytest

from tests.conftest import MakeFolder
from tests.docs.conftest import OpenShell
from tests.docs.guides import ROOT
from tests.docs.scenarios import Scenario, Shell, Swap
from tests.slurm.conftest import SMALL, Slurm, slurm

__all__ = ["slurm"]  # a fixture of the tests of Slurm

GUIDE = "docs/slurm.md"
ONE = "any job of this cluster"
TINY = "experiment=demo " + " ".join(SMALL)
FIRST = Scenario(
    GUIDE,
    ("The first job", "Stopping it"),
    changes=(
        Swap("experiment=demo", TINY, "a model and images for a processor core, and epochs that do not end"),
        Swap("1234567", "{job}", "the number that sbatch has printed"),
    ),
)
ALL_IN_ONE = "there is one node, for which every way of asking must be small"
REST = Scenario(
    GUIDE,
    (
        *("Resources", "Requeue, or a chain of jobs", "Arrays: seeds and sweeps", "Several nodes"),
        ".beton files, and data on the node's own disk",
    ),
    changes=(
        Swap("data.path=/datasets/imagenet target=/datasets/ffcv", "data.path={images} target={beton}", "a folder of the test"),
        Swap(
            "experiment=a40_adam data=ffcv data.path=/datasets/ffcv",
            f"experiment=demo data=ffcv data.path={{beton}} data.engine=torchvision {' '.join(SMALL[4:])} dry_run=true",
            "what the job before has written",
        ),
        Swap("experiment=a40_adam data=ffcv", f"{TINY} dry_run=true", "all that a job does, but the training"),
        Swap("--mem=64G", "--mem=1G", ALL_IN_ONE),
        Swap("--nodes=4", "--nodes=1", ALL_IN_ONE),
        Swap("--array=0-4", "--array=3-3", "one task instead of five"),
    ),
    long=True,
)
SCENARIOS = (FIRST, REST)


def reader(open_shell: OpenShell, slurm: Slurm) -> tuple[Shell, Slurm]:
    """A shell in a copy of the project, and the cluster as seen from there."""
    one = {"VENV": sys.prefix, "NPROC": "1", "SLURM_CONF": str(slurm.folder / "slurm.conf"), "TMPDIR": "/tmp"}
    shell = open_shell(one)
    return shell, Slurm(slurm.folder, shell.project)


def wait_until_it_is_in_the_queue_again(slurm: Slurm, job: str) -> None:
    slurm.wait("requeued", lambda: slurm.says(job, "Restarts") == "1" and slurm.says(job, "Reason") == "BeginTime")
    assert slurm.says(job, "JobState") == "PENDING"
    assert "stopped and saved. The job is in the queue again." in slurm.log(f"4xA40-{job}.log")


def test_the_first_job_trains_is_requeued_when_asked_to_stop_and_cancelled(open_shell: OpenShell, slurm: Slurm) -> None:
    shell, slurm = reader(open_shell, slurm)
    job, told = "", {}
    for command in FIRST.commands():
        if command.text.startswith("tail"):
            slurm.wait_until_it_trains(f"4xA40-{job}.log")
        text = FIRST.typed(command, {"job": job})
        done = shell.type(text)
        assert done.returncode == 0, f"{command.place}\ntyped: {text}\n{done.stdout}\n{done.stderr}"
        told[command.text.split()[0]] = done.stdout
        if submitted := re.match(r"Submitted batch job (\d+)", done.stdout):
            job = submitted[1]
        if "USR1" in command.text:
            wait_until_it_is_in_the_queue_again(slurm, job)
    assert job in told["squeue"] and f"JobId={job}" in told["scontrol"] and '"status": "running"' in told["cat"]
    slurm.wait_for_state(job, "CANCELLED")
    assert "nodes, start 1" in slurm.log(f"4xA40-{job}.log")


def test_slurm_takes_every_other_job_of_the_guide(open_shell: OpenShell, slurm: Slurm) -> None:
    shell, _ = reader(open_shell, slurm)
    jobs = [command for command in REST.commands() if "sbatch" in command.text]
    assert len(jobs) >= 8
    for command in jobs:
        text = REST.typed(command, {"images": "x", "beton": "x"}).replace("sbatch ", "sbatch --test-only ")
        done = shell.type(text)
        assert done.returncode == 0 and "to start at" in done.stderr, f"{text}\n{done.stdout}\n{done.stderr}"


def states_at_the_end(slurm: Slurm, job: str) -> set[str]:
    """Wait until a job, with all its tasks, has left the queue."""
    slurm.wait(f"job {job} has left the queue", lambda: not any(one.startswith(job) for one in slurm.queue()))
    return set(re.findall(r"JobState=(\w+)", slurm.command("scontrol", "show", "job", job)))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_other_job_of_the_guide_ends_well(
    open_shell: OpenShell, slurm: Slurm, make_folder: MakeFolder, tmp_path: Path
) -> None:
    shell, slurm = reader(open_shell, slurm)
    for split in ("train", "val"):
        make_folder(tmp_path / "images" / split, per_class=16, suffix=".jpg")
    for command in REST.commands():
        text = REST.typed(command, {"images": tmp_path / "images", "beton": tmp_path / "beton"})
        done = shell.type(text)
        assert done.returncode == 0, f"{command.place}\ntyped: {text}\n{done.stdout}\n{done.stderr}"
        submitted = re.match(r"Submitted batch job (\d+)", done.stdout)
        if submitted is None:
            assert "sbatch" not in command.text, done.stdout
            continue
        assert states_at_the_end(slurm, submitted[1]) == {"COMPLETED"}, text + slurm.logs()
    assert {file.name for file in (tmp_path / "beton").glob("*.beton")} == {"train.beton", "val.beton"}


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("--gres=gpu:h100:1", "Requested node configuration is not available"),
        ("--gres=gpu:a40:8", "Requested node configuration is not available"),
        ("--gres=tpu:1", "Invalid generic resource (gres) specification"),
    ],
)
def test_slurms_refusals_are_those_that_the_guide_quotes(open_shell: OpenShell, slurm: Slurm, asked: str, answer: str) -> None:
    shell, _ = reader(open_shell, slurm)
    done = shell.type(f"sbatch {asked} scripts/slurm/4xA40.sh")
    assert done.returncode == 1
    assert answer in done.stderr and f"`{answer}`" in (ROOT / GUIDE).read_text()


def test_messages_that_the_guide_quotes_are_printed_by_the_scripts() -> None:
    source = " ".join(file.read_text() for file in sorted((ROOT / "scripts/slurm").glob("*.sh")))
    text = (ROOT / GUIDE).read_text().partition("## What goes wrong")[2]
    quoted = re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)
    of_slurm = [one for one in quoted if one.startswith(("Invalid ", "Requested "))]
    assert len(of_slurm) == 3 and len(quoted) >= 9
    assert [one for one in quoted if one not in source and one not in of_slurm] == []


def test_every_job_script_and_variable_is_told() -> None:
    text = (ROOT / GUIDE).read_text()
    scripts = {file.name for file in (ROOT / "scripts/slurm").glob("*.sh")} - {"job.sh"}
    variables = re.findall(r"^#   ([A-Z_]+) ", (ROOT / "scripts/slurm/job.sh").read_text(), re.MULTILINE)
    assert [name for name in scripts if f"scripts/slurm/{name}" not in text] == []
    assert len(variables) >= 9
    assert [name for name in variables if name not in text and name not in ("MAX_RESTARTS", "PROJECT")] == []
