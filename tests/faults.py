"""A fault at a chosen moment of a chosen rank, put into the trainer from outside. The product has no knob for this.

    python -m tests.faults kill:step=7,marker=/dev/shm/x/fired -- experiment=demo
    torchrun --nproc_per_node=2 -m tests.faults signal:USR1:rank=1,at=evaluation,step=20,to=parent,marker=/dev/shm/x/fired -- ...

A fault is `<kind>:<key>=<value>,...`; several may be given. Keys: `rank` (0), `step` (0: the first at or after which it happens),
`at` (step), `marker` (a file that is made when it fires: it fires once a run, whatever is restarted), `to` (of a signal: self or
parent; of touch: the file), `seconds` (of slow, and after a signal to the parent, which has to pass it on), `times` (1; how often
it fires: each makes a file of its own).

Kinds: kill, exit, raise, hang, oom, disk_full, slow, nan, touch, signal:<NAME>. nan is for `at=step` only; disk_full for `at=save`.
Moments: startup (the data is being opened), read (of a synthetic image, by a loader's thread; its `step` counts reads), step
(before it is computed; its number is run.step), evaluation and recalibration (after the first batch), save (rank 0: the
state is written and not yet renamed to last.ckpt; others: when save is called), epoch_end (evaluated, not recorded yet).
"""

import errno
import itertools
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOMENTS = ("startup", "read", "step", "evaluation", "recalibration", "save", "epoch_end")
KINDS = ("kill", "exit", "raise", "hang", "oom", "disk_full", "slow", "nan", "touch", "signal")


@dataclass
class Fault:
    """What happens, when, and to whom."""

    kind: str
    marker: Path
    rank: int = 0
    step: int = 0
    at: str = "step"
    to: str = "self"
    seconds: float = 1.0
    times: int = 1

    def __post_init__(self) -> None:
        if self.kind.split(":")[0] not in KINDS or self.at not in MOMENTS:
            raise ValueError(f"no such fault: {self}. Kinds {KINDS}, moments {MOMENTS}.")

    @classmethod
    def parse(cls, text: str) -> "Fault":
        kind, _, rest = text.rpartition(":")
        given = dict(item.split("=", 1) for item in rest.split(","))
        numbers: dict[str, Any] = {name: int(given.pop(name)) for name in ("rank", "step", "times") if name in given}
        if "seconds" in given:
            numbers["seconds"] = float(given.pop("seconds"))
        return cls(kind, Path(given.pop("marker")), **numbers, **given)

    def text(self) -> str:
        """Return what parse reads."""
        keys = ("marker", "rank", "step", "at", "to", "seconds", "times")
        return f"{self.kind}:" + ",".join(f"{key}={getattr(self, key)}" for key in keys)

    def is_mine(self) -> bool:
        return self.rank == int(os.environ.get("RANK", "0"))

    def takes_turn(self) -> bool:
        """Return whether it is to happen now, which only so many processes are ever told."""
        for turn in range(self.times):
            try:
                os.close(os.open(f"{self.marker}-{turn}" if turn else self.marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            except FileExistsError:
                continue
            return True
        return False

    def happen(self) -> None:
        import torch

        match self.kind.split(":"):
            case ["kill"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["exit"]:
                os._exit(3)
            case ["raise"]:
                raise RuntimeError("injected fault")
            case ["hang"]:
                while True:
                    time.sleep(3600)
            case ["oom"]:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. (injected fault)")
            case ["disk_full"]:
                raise OSError(errno.ENOSPC, "No space left on device (injected fault)")
            case ["slow"]:
                time.sleep(self.seconds)
            case ["touch"]:
                Path(self.to).touch()
                time.sleep(self.seconds)  # it is looked for once a second
            case ["signal", name]:
                os.kill(os.getpid() if self.to == "self" else os.getppid(), getattr(signal, f"SIG{name}"))
                if self.to == "parent":
                    time.sleep(self.seconds)


def fail_at(rank: int, step: int, kind: str, *, marker: Path, at: str = "step", **more: Any) -> None:
    """Arrange the fault in this process, before the trainer runs."""
    arrange(Fault(kind, marker, rank=rank, step=step, at=at, **more))


def arrange(fault: Fault) -> None:
    if not fault.is_mine():
        return
    {
        "startup": _in_startup,
        "read": _in_a_read,
        "step": _in_a_step,
        "evaluation": _in_evaluation,
        "recalibration": _in_recalibration,
        "save": _in_a_save,
        "epoch_end": _at_an_epochs_end,
    }[fault.at](fault)


def _before(owner: Any, name: str, act: Callable[..., None]) -> None:
    """Let act see the arguments before every call of owner.name."""
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        act(*arguments, **named)
        return original(*arguments, **named)

    setattr(owner, name, wrapped)


def _in_startup(fault: Fault) -> None:
    from src import session

    def act(*_: Any, **__: Any) -> None:
        if fault.takes_turn():
            fault.happen()

    _before(session, "open_sources", act)


def _in_a_read(fault: Fault) -> None:
    from src.data.sources.synthetic import SyntheticSource

    reads = itertools.count()

    def act(*_: Any) -> None:
        if next(reads) >= fault.step and fault.takes_turn():
            fault.happen()

    _before(SyntheticSource, "read", act)


def _in_a_step(fault: Fault) -> None:
    from src.training import loop

    def act(run: Any, *_: Any) -> None:
        if run.step >= fault.step and fault.takes_turn():
            if fault.kind == "nan":
                _poison(run)
            else:
                fault.happen()

    _before(loop, "train_step", act)


def _poison(run: Any) -> None:
    augment = run.augment

    def poisoned(*arguments: Any, **named: Any) -> Any:
        run.augment = augment
        augmented = augment(*arguments, **named)
        return type(augmented)(augmented[0] * float("nan"), *augmented[1:])

    run.augment = poisoned


def _in_evaluation(fault: Fault) -> None:
    from src import build
    from src.training.run import Run

    due = _noting_the_step(fault, Run, "evaluate")
    original = build.count

    def count(model: Any, batches: Iterator[Any], **named: Any) -> Any:
        return original(model, _interrupted(batches, fault, due), **named)

    build.count = count


def _in_recalibration(fault: Fault) -> None:
    from src.training import averaging
    from src.training.run import Run

    due = _noting_the_step(fault, Run, "evaluate")
    original = averaging.recalibrate_batch_norm

    def recalibrate(model: Any, batches: Iterator[Any], **named: Any) -> Any:
        return original(model, _interrupted(batches, fault, due), **named)

    averaging.recalibrate_batch_norm = recalibrate


def _noting_the_step(fault: Fault, owner: Any, name: str) -> Callable[[], bool]:
    """Return what tells whether a method of the run was called at the fault's step or later."""
    reached = [False]

    def act(run: Any, *_: Any, **__: Any) -> None:
        reached[0] = run.step >= fault.step

    _before(owner, name, act)
    return lambda: reached[0]


def _interrupted(batches: Iterator[Any], fault: Fault, due: Callable[[], bool]) -> Iterator[Any]:
    """Pass batches on; the fault happens between the first and the second, or at the end where there is but one."""
    for number, batch in enumerate(batches):
        if number == 1 and due() and fault.takes_turn():
            fault.happen()
        yield batch
    if due() and fault.takes_turn():
        fault.happen()


def _in_a_save(fault: Fault) -> None:
    from src.training.run import Run

    due = _noting_the_step(fault, Run, "save")

    def on_rank_0(_: Any, target: Any, *__: Any, **___: Any) -> None:
        if Path(target).name == "last.ckpt" and due() and fault.takes_turn():
            fault.happen()

    def elsewhere(*_: Any, **__: Any) -> None:
        if due() and fault.takes_turn():
            fault.happen()

    if fault.rank == 0:
        _before(os, "replace", on_rank_0)
    else:
        _before(Run, "save", elsewhere)


def _at_an_epochs_end(fault: Fault) -> None:
    from src.training.run import Run

    def act(run: Any, *_: Any) -> None:
        if run.step >= fault.step and fault.takes_turn():
            fault.happen()

    _before(Run, "record_epoch", act)


def main() -> None:
    words = sys.argv[1:]
    while words and "marker=" in words[0]:
        arrange(Fault.parse(words.pop(0)))
    if words[:1] == ["--"]:  # torchrun swallows it where no fault stands before it
        words.pop(0)
    sys.argv = ["src/train.py", *words]
    runpy.run_module("src.train", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
