"""A Slurm for the tests, and what they ask of it."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.slurm import cluster

ROOT = Path(__file__).resolve().parents[2]

# One process on the CPU that trains for ever, unless told otherwise; what it draws needs no files.
SMALL = (
    *("data=synthetic", "data.num_train=64", "data.num_val=16", "data.stored_size=16", "data.image_size=16", "data.resize_size=18"),
    *("model=small_resnet", "model.width=4", "model.stem_stride=2", "batch_size=16", "eval_batch_size=16", "keep_top_k=0"),
    *("epochs=100000", "eval_every_epochs=100000", "save_every_steps=1000", "track.log_every_steps=4", "schedule.warmup_epochs=0"),
)
PATIENCE_SECONDS = 240.0


class Slurm:
    """A cluster that runs, and the folder in which jobs are submitted."""

    def __init__(self, folder: Path, submit_from: Path) -> None:
        self.folder, self.here = folder, submit_from
        self.runs = submit_from / "runs"
        own = {"PROJECT": str(ROOT), "VENV": sys.prefix, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        strange = ("SLURM", "SBATCH", "TORCHELASTIC", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
        self._variables = kept | own | {"SLURM_CONF": str(folder / "slurm.conf")}

    def command(self, *words: str, **variables: str) -> str:
        """Run one of Slurm's commands, and return what it prints."""
        settings = self._variables | variables
        done = subprocess.run(words, cwd=self.here, env=settings, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def submit(self, script: str, *arguments: str, options: tuple[str, ...] = (), **variables: str) -> str:
        """Submit one of the job scripts; return the job's number."""
        if script != "write_ffcv.sh":
            arguments = (*arguments, f"runs_dir={self.runs}")
        return self.command("sbatch", "--parsable", *options, str(ROOT / "scripts/slurm" / script), *arguments, **variables)

    def says(self, job: str, key: str) -> str:
        """Return one field of `scontrol show job`."""
        found = re.search(rf"(?<!\S){key}=(\S*)", self.command("scontrol", "show", "job", "--oneliner", job))
        return found[1] if found else ""

    def status(self, run_name: str) -> dict[str, Any]:
        """Return a run's status.json."""
        state: dict[str, Any] = json.loads((self.runs / run_name / "status.json").read_text())
        return state

    def queue(self) -> list[str]:
        """Return the numbers of the jobs that wait or run."""
        return self.command("squeue", "--noheader", "--format=%i").split()

    def log(self, name: str) -> str:
        """Return a job's log, or what there is of it; on a failed test it is printed."""
        file = self.here / name
        return file.read_text() if file.exists() else ""

    def last_start(self, name: str) -> str:
        """Return the log from the last start on."""
        return self.log(name).rpartition(" nodes, start ")[2]

    def wait(self, what: str, until: Callable[[], bool]) -> None:
        """Wait for a state; when patience ends, tell all that is known."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not until():
            if time.monotonic() > deadline:
                pytest.fail(f"{self.command('scontrol', 'show', 'job')}\n{self.logs()}\nwaited in vain for: {what}")
            time.sleep(0.1)

    def wait_for_state(self, job: str, state: str) -> None:
        """Wait until the job is in this state, and no process of it is left."""
        over = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}
        self.wait(f"job {job} {state}", lambda: self.says(job, "JobState") in {state, *over - {state}})
        assert self.says(job, "JobState") == state, self.command("scontrol", "show", "job", job) + self.logs()

    def wait_until_it_trains(self, log: str, *, start: int = 1) -> None:
        """Wait until the start of this number has made its first steps."""
        self.wait(
            f"start {start} in {log} trains",
            lambda: self.log(log).count(" nodes, start ") == start and " step " in self.last_start(log),
        )

    def start_again(self, job: str, **changes: str) -> None:
        """Let a requeued job start soon: Slurm lets it wait for two minutes.

        In the second of the requeue it cannot start: credentials of that second are revoked, and Slurm fails the job.
        """
        self.command(
            "scontrol", "update", f"jobid={job}", "starttime=now+3seconds", *(f"{key}={value}" for key, value in changes.items())
        )

    def logs(self) -> str:
        """Return all logs' ends."""
        return "\n".join(f"== {file.name}\n{file.read_text()[-2000:]}" for file in sorted(self.here.glob("*.log")))

    def send_to_ranks(self, run_name: str, number: signal.Signals) -> int:
        """Send a signal to the processes that train; return how many there are."""
        known = dict(processes())
        # By the folder as well: other tests of this machine have runs of the same name, which are not ours to stop.
        marks = {f"run_name={run_name}", f"runs_dir={self.runs}"}
        ours = {pid for pid, words in known.items() if marks <= set(words) and is_rank(words)}
        pids = [pid for pid in ours if parent(pid) not in ours]  # what a rank has forked looks like a rank
        for pid in pids:
            os.kill(pid, number)
        return len(pids)


def is_rank(words: list[str]) -> bool:
    """Return whether a command line is a rank's, and not torchrun's, srun's or the script's."""
    return "python" in words[0] and "src.train" in words and "torch.distributed.run" not in words


def parent(pid: int) -> int:
    """Return the id of a process's parent, or 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def processes() -> Iterator[tuple[int, list[str]]]:
    """Yield the id and the command line of every process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                yield int(entry.name), (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Start a Slurm for this module's tests, on all of this machine's cores."""
    reason = cluster.why_not()
    if reason is not None:
        pytest.skip(f"no Slurm here: {reason}")
    own = os.sched_getaffinity(0)  # the daemons' jobs inherit it, and tests are pinned to one core
    # A path for sockets must be short, and open to munge's clients: tmp_path is neither.
    with tempfile.TemporaryDirectory(prefix="slurm", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        try:
            os.sched_setaffinity(0, range(os.cpu_count() or 1))
            cluster.start(folder, kill_wait=1)
        finally:
            os.sched_setaffinity(0, own)
        try:
            yield Slurm(folder, tmp_path_factory.mktemp("jobs"))
        finally:
            cluster.stop(folder)
