"""Damage a run's files at random and start it again: it goes on from a state that was saved, or says which file and what to do.

    python -m tests.end_to_end.corruptions --count 10000

The last line is JSON: corruptions, resumed, refused, wrong, seconds, and how often each kind of damage met each kind of file.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import src.train
import src.train_run
from src.config import Config, load
from src.first_batch import Ready
from src.tracking import heartbeat
from src.training.clock import Clock
from src.training.history import History
from src.training.run import Run
from src.training.stopping import Preempted
from tests.end_to_end.corrupt_indexes import Indexes
from tests.end_to_end.damage import damage, renew
from tests.training.conftest import copy_of, differing

SETTINGS = (
    *("data=synthetic", "data.num_train=64", "data.num_val=20", "data.stored_size=16", "data.image_size=16", "data.resize_size=18"),
    *("model=small_resnet", "model.depth=8", "model.width=4", "model.stem_stride=2", "batch_size=16", "epochs=4"),
    *(
        "save_every_steps=2",
        "track.log_every_steps=2",
        "keep_top_k=2",
        "eval_batch_size=10",
        "average=ema",
        "precision=fp32",
        "schedule.warmup_epochs=1",
    ),
)
STOP_AFTER = 10  # of 16 steps
# What nothing of the training depends on: damaged alone, it changes nothing.
BYSTANDERS = {"status.json", "meta.json", "command.txt", "train.log", "STOP", ".lock", ".heartbeat", "wandb.json"}
MOST_WRONG = 20


class Golden:
    """A run that was stopped in the middle: its folder, what it held at every save, and what it became when it went on."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "golden"
        self.states: dict[tuple[int, int], dict[str, Any]] = {}
        self.older: list[Path] = []
        self.config = load([*SETTINGS, f"runs_dir={root / 'runs'}", "run_name=r"])
        self._work = root / "runs" / "r"
        real = Run.save

        def save(run: Run, **how: Any) -> None:
            if self._work.is_dir():
                self.older.append(root / "older" / str(len(self.older)))
                shutil.copytree(self._work, self.older[-1])
            real(run, **how)
            run.saving.finish()
            self.states[run.step, len(run.history.epochs)] = seen(run)
            if run.step == STOP_AFTER:
                os.kill(os.getpid(), signal.SIGUSR1)

        with mock.patch.object(Run, "save", save):
            code, said = start(self.config)
            assert code == 75, said
        shutil.copytree(self._work, self.folder)
        for name, content in (("STOP", b""), (".heartbeat", b'{"host": "other", "pid": 7, "boot": "b", "token": "t", "count": 3}')):
            (self.folder / name).write_bytes(content)
        self.rows = (self.folder / "metrics.jsonl").read_bytes().splitlines()
        self.newest = max(self.states)
        real_fit, real_train = src.train_run.fit, src.train_run.train

        def keep_run(run: Run) -> Any:
            self.built = run
            return real_fit(run)

        def keep_ready(config: Config, place: Any, ready: Ready, *more: Any) -> Any:
            self.ready = ready
            return real_train(config, place, ready, *more)

        with mock.patch("src.train_run.fit", keep_run), mock.patch("src.train_run.train", keep_ready):
            code, said = start(self.config)
        assert code == 0, said
        shutil.copytree(self._work, root / "end")
        self.end = end_of(root / "end")

    def victims(self) -> list[Path]:
        """Return the files that may be damaged, relative to the run's folder."""
        return sorted(path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())

    def other_files(self) -> list[Path]:
        """Return files whose content may come to stand in another's place."""
        return [self.folder / path for path in self.victims()]

    def trial(self, chance: random.Random, *, to_the_end: bool) -> "Trial":
        """Damage, start, judge."""
        renew(self.folder, self._work)
        weights = [6 if path.suffix == ".ckpt" or path.name.startswith("checkpoints") else 2 for path in self.victims()]
        done = {}
        for path in chance.choices(self.victims(), weights, k=chance.choice((1, 1, 1, 2, 3))):
            older = [folder / path for folder in self.older if (folder / path).is_file()]
            if (self._work / path).is_file():
                how = damage(self._work / path, chance, others=self.other_files(), older=older)
                if how is not None:
                    done[str(path)] = how
        if not done:
            return self.trial(chance, to_the_end=to_the_end)
        found: list[dict[str, Any]] = []

        def probe(run: Run) -> None:
            found.append(seen(run))
            raise Preempted

        with contextlib.nullcontext() if to_the_end else self._prepared(probe):
            code, said = start(self.config)
        if code == 2 or (code == 1 and "unexpected" not in said and "Traceback" not in said):
            return Trial(done, "refused", self._judge_refusal(done, said))
        if to_the_end:
            return Trial(done, "resumed", [said[-2000:]] if code else self._judge_end(said))
        wrong = self._judge(done, found[0], said) if code == 75 and found else [f"exit code {code}", said[-3000:]]
        return Trial(done, "resumed", wrong)

    @contextlib.contextmanager
    def _prepared(self, probe: Callable[[Run], None]) -> Iterator[None]:
        """Let a start use the data and the model of the one before, emptied: what it reads of the run's folder stays as it is."""

        @contextlib.contextmanager
        def preflight(*_: object) -> Iterator[Ready]:
            yield self.ready

        def build_run(*_: object, **parts: Any) -> Run:
            now = {name: parts[name] for name in ("trackers", "requests", "write_checkpoint", "after_each_step")}
            run = dataclasses.replace(self.built, **now, step=0, history=History(), clock=Clock(), evaluation_weights=None)
            run.optimizer.state.clear()
            for tensor in run.model.state_dict().values():
                tensor.zero_()
            return run

        with (
            mock.patch("src.train_run.fit", probe),
            mock.patch("src.train_run.build_run", build_run),
            mock.patch("src.preflight.preflight", preflight),
        ):
            yield

    def _judge_refusal(self, done: dict[str, str], said: str) -> list[str]:
        named = any(Path(path).name in said or str((self._work / path).parent) in said for path in done)
        if set(map(Path, done)) and all(how != "folder" and Path(path).name in BYSTANDERS for path, how in done.items()):
            return ["refused for nothing", said]
        return [] if named and said.count(". ") >= 1 else ["the refusal names no file, or no remedy", said]

    def _judge(self, done: dict[str, str], state: dict[str, Any], said: str) -> list[str]:
        key = (state["step"], len(state["history"]))
        if key not in self.states:
            return [f"state {key} was never saved", said]
        wrong = [f"differs from what was saved: {place}" for place in differing(self.states[key], state)]
        if key < self.newest and "WARNING" not in said:
            wrong.append(f"went back to {key} without a word")
        if key < self.newest and not any(path.startswith("checkpoints") for path in done):
            wrong.append(f"went back to {key} for nothing")
        rows = (self._work / "metrics.jsonl").read_bytes().splitlines()
        due = [row for row in self.rows if json.loads(row)["step"] <= key[0] and self._is_due(json.loads(row), state)]
        if rows != due and "metrics.jsonl IS NOT WHAT WAS WRITTEN" not in said:
            wrong.append("metrics.jsonl is not what was written, and nobody was told")
        if not any("jsonl" in path for path in done) and rows != due:
            wrong.append("metrics.jsonl changed")
        if (self._work / "config.yaml").read_bytes() != (self.folder / "config.yaml").read_bytes():
            wrong.append("config.yaml is wrong")
        if "status.json not written" not in said and not self._status_is("preempted"):
            wrong.append("status.json is wrong")
        return [*wrong, said] if wrong else []

    def _status_is(self, status: str) -> bool:
        return bool(json.loads((self._work / "status.json").read_bytes())["status"] == status)

    @staticmethod
    def _is_due(row: dict[str, Any], state: dict[str, Any]) -> bool:
        return row["kind"] == "train" or any(entry["step"] == row["step"] for entry in state["history"])

    def _judge_end(self, said: str) -> list[str]:
        return [f"the end differs: {place}" for place in differing(self.end, end_of(self._work))]


class Trial:
    """One damage and what came of it."""

    def __init__(self, done: dict[str, str], outcome: str, wrong: list[str]) -> None:
        self.done, self.outcome, self.wrong = done, outcome, wrong


def seen(run: Run) -> dict[str, Any]:
    """Copy all of a run that decides how it goes on."""
    state = {
        "step": run.step,
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "average": run.average.state(),
        "meter": run.meter.state(),
        "history": run.history.epochs,
    }
    copied: dict[str, Any] = copy_of(state)
    return copied


def end_of(folder: Path) -> dict[str, Any]:
    """Return the final checkpoint of a finished run."""
    state: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return state


def start(config: Config) -> tuple[int, str]:
    """Start a run by the door's function; return the exit code and all that was said."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = src.train.run(config)
    return code, said.getvalue()


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Leave out what takes long and reads none of the files: watching a foreign heartbeat, fsync, git, the space on the disk."""
    with contextlib.ExitStack() as stack:
        for name, value in (("WATCH", 0.03), ("SETTLE", 0.0), ("_POLL", 0.01)):
            stack.enter_context(mock.patch.object(heartbeat, name, value))
        stack.enter_context(mock.patch("src.session.cpus_per_rank", lambda world: 1))  # other threads, other last bits
        stack.enter_context(mock.patch("os.fsync", lambda descriptor: None))
        stack.enter_context(mock.patch("src.tracking.run_folder._git", lambda *arguments: None))
        stack.enter_context(mock.patch("loguru._better_exceptions.ExceptionFormatter._get_lib_dirs", staticmethod(lambda: [])))
        stack.enter_context(mock.patch("src.preflight.folder_problems", lambda *arguments: []))
        yield


def corrupt(count: int, seed: int, *, ends: float = 0.01) -> dict[str, Any]:
    """Make so many damaged starts, half of them of a run's folder, half of indexes; count what came of them.

    Args:
        ends: share of the runs that train on to their end, which is compared.
    """
    begin, chance = time.monotonic(), random.Random(seed)
    outcomes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    told: list[str] = []
    scratch = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=scratch) as folder, quick():
        golden, indexes = Golden(Path(folder)), Indexes(Path(folder) / "indexes")
        for number in range(count):
            of_index = number % 2 == 1
            trial = Trial(*indexes.trial(chance)) if of_index else golden.trial(chance, to_the_end=chance.random() < ends)
            outcomes["wrong" if trial.wrong else trial.outcome] += 1
            kinds.update(trial.done.values())
            if number % 500 == 499:
                print(f"{number + 1} of {count}: {dict(outcomes)}", file=sys.stderr, flush=True)
            if trial.wrong:
                text = f"{trial.done}: {'; '.join(trial.wrong)}".replace(folder, "")
                told.append(text)
                print(text, file=sys.stderr, flush=True)
                if len(told) >= MOST_WRONG:
                    break
    found = {name: outcomes[name] for name in ("resumed", "refused", "wrong")}
    seconds = round(time.monotonic() - begin, 1)
    return {"corruptions": sum(outcomes.values()), **found, "seconds": seconds, "kinds": dict(sorted(kinds.items())), "told": told}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    result = corrupt(options.count, options.seed)
    del result["told"]
    print(json.dumps(result))
    return int(result["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
