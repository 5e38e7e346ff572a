"""Train while the wall clock jumps by a year between any two steps, stop, date all files a year ahead, go on, and compare.

    python -m tests.end_to_end.clock_jumps <empty folder>

The last line is JSON: jumps, differences. Python's clock jumps, not the system's: nothing of ours that asks a wall clock is in C.
"""

import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import src.train
from src.config import load
from src.training.run import Run
from tests.end_to_end.kill_harness import compare
from tests.pictures import encode, write_files

SETTINGS = (
    *("data=imagefolder", "data.image_size=16", "data.resize_size=18", "data.engine=torchvision", "data.workers=1"),
    *("model=small_resnet", "model.depth=8", "model.width=4", "model.stem_stride=2", "batch_size=16", "epochs=3"),
    *("schedule.warmup_epochs=1", "save_every_steps=2", "track.log_every_steps=1", "keep_top_k=2", "precision=fp32"),
)
YEAR = 365 * 24 * 3600
STOP_AFTER = 5


class Clock:
    """Python's wall clock, which jumps."""

    def __init__(self) -> None:
        self._offsets, self._offset = itertools.cycle((YEAR, -YEAR, 0)), 0
        self._time, self._time_ns = time.time, time.time_ns
        self.jumps = 0

    def real(self) -> float:
        return self._time()

    def jump(self) -> None:
        before = time.time()
        self._offset = next(self._offsets)
        time.time, time.time_ns = lambda: self._time() + self._offset, lambda: self._time_ns() + self._offset * 10**9
        self.jumps += abs(time.time() - before) > YEAR / 2


def main(folder: Path) -> int:
    clock, real = Clock(), Run.after_step
    for split, count in (("train", 64), ("val", 16)):
        files = {f"{'ab'[number % 2]}/{number}.png": encode("png", 20 + number % 3, 20, number) for number in range(count)}
        write_files(folder / split, files)

    def after_step(run: Run, **how: Any) -> None:
        real(run, **how)
        clock.jump()
        if run.step == STOP_AFTER:
            os.kill(os.getpid(), signal.SIGUSR1)

    assert train(folder, "whole") == 0
    with mock.patch.object(Run, "after_step", after_step):
        clock.jump()
        assert train(folder, "hurt") == 75
        for path in folder.rglob("*"):  # data, index, checkpoints, records: all come from the future
            os.utime(path, (clock.real() + YEAR, clock.real() + YEAR))
        assert train(folder, "hurt") == 0
    differences = compare(folder / "runs" / "whole", folder / "runs" / "hurt")
    differences += [
        f"{name}: {text}" for name in ("whole", "hurt") for text in wrong_times(folder / "runs" / name / "metrics.jsonl")
    ]
    print(json.dumps({"jumps": clock.jumps, "differences": differences}))
    return int(bool(differences))


def train(folder: Path, name: str) -> int:
    where = (f"data.path={folder}", f"data.cache_dir={folder}/cache", f"runs_dir={folder}/runs", f"run_name={name}")
    return src.train.run(load([*SETTINGS, *where]))


def wrong_times(file: Path) -> list[str]:
    """Name every duration that is negative or as long as a jump."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    times = [(row["step"], key, row[key]) for row in rows for key in row if key.startswith("time/")]
    return [f"{key} = {value} at step {step}" for step, key, value in times if not (0 <= value < 1e6)]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
