"""Kill a training with SIGKILL at random instants, start it again by the same command, and compare its end with an undisturbed one.

    python -m tests.end_to_end.kill_harness --kills 10 --ranks 1 2 --optimizers sgd adam adamw sf_sgd sf_adamw
    python -m tests.end_to_end.kill_harness --kills 10 --ranks 1 2 --optimizers sgd --loaders
    python -m tests.end_to_end.kill_harness --kills 10 --ranks 1 2 --optimizers sam lamb --everything

The last line is JSON: runs, kills, lost, unequal, seconds. soak.py does so for as long as told, with everything mixed.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from src.tracking.ledger_file import read_rows as read_ledger
from src.tracking.machine_figures import repeatable
from src.training.checkpoint_file import load_file
from tests.end_to_end.small_data import COMBINATIONS, settings_of, write_small_data
from tests.everything import EVERYTHING
from tests.training.conftest import differing

ROOT = Path(__file__).resolve().parents[2]
SYNTHETIC = (
    *("data=synthetic", "data.num_train=650", "data.num_val=100", "data.stored_size=16"),
    *("data.image_size=16", "data.resize_size=18"),
)
SETTINGS = (
    *("model=small_resnet", "model.width=4", "model.stem_stride=2", "batch_size=32", "epochs=5", "schedule.warmup_epochs=1"),
    *("save_every_steps=3", "track.log_every_steps=4", "keep_top_k=2", "eval_batch_size=10"),
)
STEPS_PER_EPOCH, SAVE_EVERY = 20, 3  # of the settings above
OPTIMIZERS = ("sgd", "adam", "adamw", "sf_sgd", "sf_adamw")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--optimizers", nargs="+", default=OPTIMIZERS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loaders", nargs="*", help="engine/source, as in small_data.py; all of them if none is named")
    parser.add_argument("--everything", action="store_true", help="all features of the recipes at once")
    options = parser.parse_args()
    loaders = ["synthetic"] if options.loaders is None else options.loaders or list(COMBINATIONS)
    start, kills, lost, unequal, runs = time.monotonic(), 0, 0, 0, 0
    moments: dict[str, int] = {}
    for ranks, name, loader in itertools.product(options.ranks, options.optimizers, loaders):
        with tempfile.TemporaryDirectory() as folder:
            data = SYNTHETIC
            if loader != "synthetic":
                data = settings_of(loader, write_small_data(Path(folder) / "data", train=650, val=100))
            settings = (*data, f"optim={name}")
            if options.everything:
                settings = (*EVERYTHING, "data.num_train=650", "max_local_batch_size=8", f"optim={name}")
            outcome = kill_and_compare(Path(folder), settings, ranks=ranks, kills=options.kills, seed=options.seed)
        runs, kills = runs + 1, kills + outcome["kills"]
        lost, unequal = lost + outcome["lost"], unequal + bool(outcome["unequal"])
        for moment in outcome["moments"]:
            moments[moment] = moments.get(moment, 0) + 1
        print(f"{loader}, {name} on {ranks}: {outcome}", file=sys.stderr, flush=True)
    seconds = round(time.monotonic() - start)
    print(json.dumps({"runs": runs, "kills": kills, "lost": lost, "unequal": unequal, "moments": moments, "seconds": seconds}))
    return int(lost + unequal > 0)


def kill_and_compare(folder: Path, settings: tuple[str, ...], *, ranks: int, kills: int, seed: int) -> dict[str, Any]:
    """Train once undisturbed and once killed so often; return what happened, with every difference by name."""
    whole = Training(folder, "whole", settings, ranks)
    whole.start()
    seconds = whole.finish()
    hurt = Training(folder, "hurt", settings, ranks)
    chance = random.Random(f"{seed} {settings} {ranks}")
    moments = []
    for _ in range(kills):
        hurt.start()
        hurt.wait_until_it_trains()
        # Short enough that the run is not over before the last kill; now and then before it trains at all.
        time.sleep(chance.uniform(0, seconds / kills))
        if aim := chance.choice((None, "in a save", "in an evaluation")):
            hurt.wait_for(aim)
        if not hurt.is_running():
            hurt.finish()
            break
        moments.append(hurt.moment())
        hurt.kill()
    hurt.start()
    try:
        hurt.finish()
    except AssertionError as error:
        return {"kills": len(moments), "lost": 1, "unequal": [str(error)], "moments": moments}
    return {"kills": len(moments), "lost": 0, "unequal": compare(whole.folder, hurt.folder), "moments": moments}


class Training:
    """One run and the processes that work on it."""

    def __init__(self, runs_dir: Path, name: str, settings: tuple[str, ...], ranks: int) -> None:
        self.folder = runs_dir / name
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
        self._mark = f"run_name={name}"
        self._command = [sys.executable, *launcher, "-m", "src.train", *SETTINGS, *settings, f"runs_dir={runs_dir}", self._mark]
        self._runs_dir = str(runs_dir)
        self.log = runs_dir / f"{name}.log"

    def start(self) -> None:
        """Start it, or start it again: the command is the same."""
        self._status_before, self._rows_before = self._status_time(), 0
        settings = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(self._command, cwd=ROOT, env=settings, stdout=subprocess.PIPE, stderr=log, text=True)

    def wait_until_it_trains(self) -> None:
        """Wait until status.json is this process's, which is just before the first step."""
        while self.is_running() and self._status_time() == self._status_before:
            time.sleep(0.005)
        self._rows_before = len(self.rows())  # rows that will be written again are cut off by then

    def wait_for(self, aim: str, *, most: float = 5.0) -> None:
        """Wait until its files tell that this is what it does, but no longer than so many seconds."""
        deadline = time.monotonic() + most
        while self.is_running() and self.moment() != aim and time.monotonic() < deadline:
            time.sleep(0.0003)

    def is_running(self) -> bool:
        """Return whether the process that was started, which may be torchrun, lives."""
        return self._process.poll() is None

    def finish(self) -> float:
        """Wait for the end; return the seconds of training."""
        out, _ = self._process.communicate(timeout=240)
        assert self._process.returncode == 0, self.log.read_text()[-2000:]
        assert json.loads(out.splitlines()[-1])["status"] == "finished"
        epochs = [row for row in self.rows() if row["kind"] == "epoch"]
        return max(1.0, sum(row["time/epoch_seconds"] + row["time/eval_seconds"] for row in epochs) * 2)

    def moment(self) -> str:
        """Say what the run is doing, as far as its files tell."""
        if self._status_time() == self._status_before:
            return "in start-up"
        checkpoints = self.folder / "checkpoints"
        if any(checkpoints.glob(".writing-*")):
            return "in a save"
        rows = self.rows()
        if len(rows) <= self._rows_before:
            return "before the first log"
        if rows[-1]["kind"] == "train":
            return "in training" if rows[-1]["step"] % STEPS_PER_EPOCH else "in an evaluation"
        with contextlib.suppress(FileNotFoundError):
            saved = (checkpoints / "last.ckpt").stat().st_mtime_ns
            if saved < (self.folder / "metrics.jsonl").stat().st_mtime_ns:
                return "at an epoch's end"  # its row is written, and the checkpoint that knows of it is not
        return "in training"

    def kill(self) -> None:
        """SIGKILL every process of the run, and wait until they are gone."""
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=0.05)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def kill_launcher(self) -> None:
        """SIGKILL the process that was started alone, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def wait(self, seconds: float) -> None:
        """Wait until the process that was started is gone, but no longer than so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=seconds)

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl; the last one may be half-written and is left away then."""
        file = self.folder / "metrics.jsonl"
        *whole, _ = file.read_text().split("\n") if file.exists() else [""]
        return [json.loads(line) for line in whole]

    def pids(self) -> dict[int, str | None]:
        """Return its processes, each with its rank, which torchrun has not."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    if self._mark in words and f"runs_dir={self._runs_dir}" in words:
                        around = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
                        found[int(entry.name)] = next((word[5:] for word in around if word.startswith("RANK=")), None)
        return found

    def _status_time(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "status.json").stat().st_mtime_ns
        return 0


def compare(whole: Path, hurt: Path) -> list[str]:
    """Name every difference between two finished runs: checkpoints, their names, all rows but for times, and the ledger."""
    names = [sorted(path.name for path in (run / "checkpoints").glob("*.ckpt")) for run in (whole, hurt)]
    if names[0] != names[1]:
        return [f"checkpoints {names[0]} and {names[1]}"]
    found = []
    for name in names[0]:
        if name == "previous.ckpt":  # the save before the last: after a kill another one
            continue
        states = [load_file(run / "checkpoints" / name) for run in (whole, hurt)]
        for state in states:  # the names differ on purpose
            state["config"]["run_name"] = state["config"]["runs_dir"] = None
        found += [f"{name}{place}" for place in differing(*states)]
    rows = [[without_times(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (whole, hurt)]
    if rows[0] != rows[1]:
        found.append(f"metrics.jsonl: {[pair for pair in zip(*rows, strict=False) if pair[0] != pair[1]][:2]}")
    ledgers = [read_ledger((run / "ledger.bin").read_bytes()).tolist() for run in (whole, hurt)]
    if ledgers[0] != ledgers[1]:
        found.append(f"ledger.bin: {[pair for pair in zip(*ledgers, strict=False) if pair[0] != pair[1]][:2]}")
    return found


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    """Leave away what the machine measured: times, memory, the GPU's state."""
    return repeatable(row)


if __name__ == "__main__":
    sys.exit(main())
