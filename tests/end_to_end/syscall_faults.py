"""Every system call that one save and one resume make on the run's folder fails once by KILL, by ENOSPC and by EIO.

    python -m tests.end_to_end.syscall_faults
    python -m tests.end_to_end.syscall_faults --sample 12 --seed 3

A process that has imported everything forks one child a trial, which goes on with a copy of the same killed run. strace is attached
to the thread in question just before the save, or before the door, and lets one call fail. Then the same command is run again
without it: it must end, and equal to an undisturbed run. The last line is JSON: save_calls, resume_calls, trials, lost, unequal.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from src.config import Config, load
from src.tracking.jsonl import JsonlTracker
from src.train import run
from src.training import loop
from src.training.checkpoint import Checkpoints
from tests.end_to_end.kill_harness import compare

SETTINGS = (
    *("data=synthetic", "data.num_train=96", "data.num_val=32", "data.stored_size=16", "data.image_size=16", "data.resize_size=18"),
    *("model=small_resnet", "model.width=4", "model.depth=8", "model.stem_stride=2", "batch_size=16", "epochs=3"),
    *("schedule.warmup_epochs=1", "save_every_steps=3", "track.log_every_steps=1", "keep_top_k=1", "eval_batch_size=16"),
    *("run_name=faults", "average=ema", "average.decay=0.5", "data.workers=1"),
)
KILLED_BEFORE_STEP = 10  # of 18, in the second of three epochs: a save lies at 9, and its rows go on to 10
KINDS = {"KILL": "signal=KILL", "ENOSPC": "error=ENOSPC", "EIO": "error=EIO"}
CALLS = ("write", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat")
CALLS += ("open", "openat", "creat", "mkdir", "mkdirat", "ftruncate", "fchmod", "symlink")
_LINE = re.compile(r"^(\w+)\((.*)$")
_SECONDS = 180  # the longest that one child may take


class Fault(NamedTuple):
    """One call to fail: of a stage, the so-manieth of its name since strace was attached, and how it reads in the log.

    Files are opened elsewhere too, not always as often: an open is the so-manieth of its path.
    """

    stage: str
    call: str
    path: str | None
    number: int
    text: str


class StraceError(Exception):
    """strace is missing, or may not attach."""


TRIES = 3


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sample", type=int, help="so many trials only, drawn by chance")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one thread of torch: none but the first may exist at a fork
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        try:
            report = examine(Path(folder), sample=options.sample, seed=options.seed)
        except StraceError as error:
            print(json.dumps({"skipped": str(error)}))
            return 0
    print(json.dumps({**report, "seconds": round(time.monotonic() - start)}))
    return int(report["lost"] + report["unequal"] + report["missed"] > 0)


def examine(folder: Path, *, sample: int | None, seed: int) -> dict[str, Any]:
    """Find the calls, let each fail in each way, and count what came of it."""
    config = load(SETTINGS)
    whole, killed = folder / "whole", folder / "killed"
    assert ended(in_child(config, whole)) == 0, (folder / "whole.log").read_text()
    assert ended(in_child(config, killed, prepare=die_before_step(KILLED_BEFORE_STEP))) == -signal.SIGKILL
    faults = [fault for stage in STAGES for fault in calls_of(stage, config, killed, folder / f"dry {stage}")]
    for fault in faults:
        print(f"{fault.stage}: {fault.text}", file=sys.stderr)
    counts = Counter(fault.stage for fault in faults)
    trials = [(fault, kind) for fault in faults for kind in KINDS]
    if sample is not None:
        trials = random.Random(seed).sample(trials, min(sample, len(trials)))
    told: dict[str, list[str]] = {"lost": [], "unequal": [], "missed": [], "tracebacks": []}
    codes: Counter[str] = Counter()
    for number, (fault, kind) in enumerate(trials):
        place = folder / f"trial{number}"
        for _ in range(TRIES):  # beside training, calls may come in another order than when they were counted
            shutil.rmtree(place, ignore_errors=True)
            code, told_now = one_trial(config, killed, whole, place, fault, kind)
            if "missed" not in told_now or len(told_now) > 1:
                break
        codes[f"{kind} {code}"] += 1
        for what, text in told_now.items():
            told[what].append(f"{kind} at {fault.stage}, {fault.call} {fault.number}, {fault.text}: {text}")
            print(f"{what}: {told[what][-1]}", file=sys.stderr, flush=True)
        shutil.rmtree(place)
    resume_calls = counts.pop("resume")
    return {
        "save_calls": counts.total(),
        "resume_calls": resume_calls,
        "calls_of_saves": dict(counts),
        "trials": len(trials),
        **{what: len(texts) for what, texts in told.items()},
        "exit_codes": dict(sorted(codes.items())),
    }


def one_trial(config: Config, killed: Path, whole: Path, place: Path, fault: Fault, kind: str) -> tuple[int, dict[str, str]]:
    """Hurt a copy of the killed run once, run it again, and compare. Returns the hurt process's exit code and what went wrong."""
    copy_run(killed, place)
    inject = ["-e", f"inject={fault.call}:{KINDS[kind]}:when={fault.number}"]
    if fault.path is not None:
        inject += ["-P", f"{place}{fault.path}"]
    code, log = traced(fault.stage, config, place, inject)
    told = {}
    injected = [line for line in log if "(INJECTED)" in line or (kind == "KILL" and _LINE.match(line))]
    if not injected or readable(injected[-1], place) != fault.text:
        told["missed"] = readable(injected[-1], place) if injected else "nothing was injected"
    output = Path(f"{place}.log")
    if "Traceback" in output.read_text():
        told["tracebacks"] = output.read_text()[-1500:]
    again = ended(in_child(config, place))
    if again != 0:
        told["lost"] = f"exit {code}, then {again}: {output.read_text()[-3000:]}"
    elif differences := compare(whole / "faults", place / "faults"):
        told["unequal"] = str(differences)
    output.unlink()
    return code, told


def calls_of(stage: str, config: Config, killed: Path, place: Path) -> list[Fault]:
    """List the calls that a stage makes on the run's folder."""
    copy_run(killed, place)
    code, log = traced(stage, config, place, [])
    assert code == 0, Path(f"{place}.log").read_text()
    seen: Counter[tuple[str, str | None]] = Counter()
    faults = []
    for line in log:
        match = _LINE.match(line)
        if match is None:
            continue
        call, path = match[1], None
        if "open" in call:
            path = f'"{line}'.split('"')[2].removeprefix(str(place))
        seen[call, path] += 1
        reads_only = "open" in call and not re.search("O_WRONLY|O_RDWR|O_CREAT", line)
        if f"{place}/" in line and not reads_only:
            faults.append(Fault(stage, call, path, seen[call, path], readable(line, place)))
    return faults


def readable(line: str, place: Path) -> str:
    """Return the call's name and the paths in it, without what differs from run to run."""
    match = _LINE.match(line)
    paths = re.findall(re.escape(str(place)) + r'([^">]*)', re.split(r"\) += |<unfinished", line)[0])
    return f"{match[1] if match else line} " + " ".join(re.sub(r"\.writing-[\w.-]+", ".writing-*", path) for path in paths)


def copy_run(source: Path, place: Path) -> None:
    """Copy a runs_dir, with its hard links."""
    subprocess.run(["cp", "-a", str(source), str(place)], check=True)


class Gate:
    """Two pipes between a child and its parent: the child says that it is there, and waits until it may go on."""

    def __init__(self) -> None:
        self._here, self._there = os.pipe(), os.pipe()

    def stop(self, word: str) -> None:
        """In the child: tell the parent and wait."""
        os.write(self._here[1], f"{word} {threading.get_native_id()}\n".encode())
        os.read(self._there[0], 1)

    def keep_childs_ends(self) -> None:
        """In the child: close the parent's ends."""
        os.close(self._here[0])
        os.close(self._there[1])

    @contextmanager
    def parents_ends(self) -> Iterator["Gate"]:
        """In the parent: close the child's ends at once, and the others at last."""
        os.close(self._here[1])
        os.close(self._there[0])
        try:
            yield self
        finally:
            os.close(self._here[0])
            os.close(self._there[1])

    def wait(self) -> list[str]:
        """In the parent: return what the child said, or nothing if it is dead."""
        return os.read(self._here[0], 100).decode().split()

    def open(self) -> None:
        """In the parent: let the child go on."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._there[1], b".")


def before_resume(gate: Gate) -> None:
    """Stop before the door, and before the first step."""
    real = loop.train_step

    def train_step(*arguments: Any) -> None:
        loop.train_step = real
        gate.stop("end")
        real(*arguments)

    loop.train_step = train_step
    gate.stop("begin")


def before_save(number: int) -> Callable[[Gate], None]:
    """Stop before and after one of the saves, in the thread that writes. It begins with making the rows of metrics.jsonl last."""

    def prepare(gate: Gate) -> None:
        real_sync, real_save, numbers = JsonlTracker.sync, Checkpoints.save, itertools.count()
        chosen: list[bool] = []

        def sync(self: JsonlTracker) -> None:
            if next(numbers) == number:
                chosen.append(True)
                gate.stop("begin")
            real_sync(self)

        def save(self: Checkpoints, *arguments: Any) -> bool:
            try:
                return real_save(self, *arguments)
            finally:
                if chosen:
                    chosen.clear()
                    gate.stop("end")

        JsonlTracker.sync, Checkpoints.save = sync, save  # type: ignore[method-assign]

    return prepare


def die_before_step(step: int) -> Callable[[Gate], None]:
    """Die as by kill -9, with nothing being written."""

    def prepare(_: Gate) -> None:
        real = loop.train_step

        def train_step(run_: Any, *arguments: Any) -> None:
            if run_.step == step:
                run_.saving.finish()
                os.kill(os.getpid(), signal.SIGKILL)
            real(run_, *arguments)

        loop.train_step = train_step

    return prepare


# Saves after the resume at step 9: at 12 (an epoch's end), after its evaluation, at 15, at 18, and after the last evaluation.
STAGES: dict[str, Callable[[Gate], None]] = {
    "resume": before_resume,
    "save beside training": before_save(1),
    "save at the end": before_save(4),
}


def in_child(config: Config, place: Path, prepare: Callable[[Gate], None] | None = None, gate: Gate | None = None) -> int:
    """Fork a child that trains in the given runs_dir. Returns its pid."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 3
    try:
        output = os.open(f"{place}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream in (1, 2):
            os.dup2(output, stream)
        names = (f"{number:08}" for number in itertools.count())
        tempfile._get_candidate_names = lambda: names  # type: ignore[attr-defined]  # the same in every trial
        gate = gate or Gate()
        gate.keep_childs_ends()
        if prepare is not None:
            prepare(gate)
        code = run(config.model_copy(update={"runs_dir": str(place)}))
    except BaseException:  # noqa: BLE001 (the child must not come back from here)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int:
    """Wait for a child. Returns its exit code, or the negative number of the signal that killed it."""
    deadline = time.monotonic() + _SECONDS
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def traced(stage: str, config: Config, place: Path, inject: list[str]) -> tuple[int, list[str]]:
    """Train in a child, with strace on the stage's thread during the stage. Returns the exit code and strace's lines."""
    gate, log = Gate(), Path(f"{place}.strace")
    pid = in_child(config, place, STAGES[stage], gate)
    with gate.parents_ends():
        said = gate.wait()
        if not said:
            raise AssertionError(f"{stage} never came: {Path(f'{place}.log').read_text()}")
        command = ["strace", "-y", "-s", "0", "-o", str(log), "-p", said[1], "-e", f"trace={','.join(CALLS)}", *inject]
        try:
            strace = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        except OSError as error:
            os.kill(pid, signal.SIGKILL)
            ended(pid)
            raise StraceError(f"strace cannot be started: {error.strerror}") from error
        assert strace.stderr is not None
        if "attached" not in (line := strace.stderr.readline()):
            os.kill(pid, signal.SIGKILL)
            ended(pid)
            raise StraceError(f"strace may not attach here: {line.strip()}")
        gate.open()
        gate.wait()
        strace.terminate()
        strace.communicate()
        gate.open()
        code = ended(pid)
    lines = log.read_text().splitlines()
    log.unlink()
    return code, lines


if __name__ == "__main__":
    if os.environ.get("OMP_NUM_THREADS") != "1":  # before torch is loaded
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.end_to_end.syscall_faults", *sys.argv[1:]],
            os.environ | {"OMP_NUM_THREADS": "1"},
        )
    sys.exit(main())
