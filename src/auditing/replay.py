"""Train a window again with the real loop, from a kept checkpoint, and hand out what it would have written."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from src.auditing.windows import Window
from src.batch import Record, Source, StepRow
from src.build import Engines, build_run
from src.config import Config
from src.session import Place
from src.training.evaluation import EvalResult
from src.training.history import figures
from src.training.ledger import Ledger
from src.training.loop import train_step
from src.training.resume import restore
from src.training.run import Run
from src.training.stopping import StopRequests


class Opened(NamedTuple):
    """The data, opened."""

    train: Source
    val: Source
    engines: Engines


class Replayed(NamedTuple):
    """What a replay would have written: rows of the ledger and of metrics.jsonl, on every rank."""

    steps: list[StepRow]
    records: list[Record]


class _Collector:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def log(self, record: Record) -> None:
        self.records.append(record)

    def advance(self, step: int) -> None:
        pass

    def close(self) -> None:
        pass


def replay(config: Config, place: Place, opened: Opened, window: Window, *, shaken: float = 0.0) -> Replayed:
    """Train a window again. Nothing is written. Every rank must call it.

    Args:
        config: of the run, with the micro-batch that it had.
        place: this process.
        opened: the data.
        window: what to replay.
        shaken: by what share of itself each weight is moved up or down first: a rounding's size, to learn what one does.
    """
    steps: list[StepRow] = []
    collector = _Collector()
    with _run(config, place, opened, window.start.state, collector) as run:
        run.meter.ledger = Ledger(run.arithmetic, opened.train.labels, run.device, keep=steps.extend)
        if shaken:
            _shake(run, shaken)
        train_until(run, window.last)
    return Replayed(steps, collector.records)


def train_until(run: Run, last: int) -> None:
    """Do what src.training.loop.fit does, without saving, up to a step; where an epoch ends there, its evaluation too."""
    while True:
        if run.epoch_has_ended():
            run.record_epoch(run.evaluate() if run.evaluation_is_due() else None)
        if run.step >= last:
            return
        with run.clock.running():
            batches = run.epoch_batches()
            for _ in range(run.step, min(run.end_of_epoch(), last)):
                train_step(run, batches)
                run.step += 1
                run.after_step(stopping=False)
            run.meter.ledger.write()


def evaluate_again(config: Config, place: Place, opened: Opened, state: dict[str, Any]) -> dict[str, float]:
    """Return a checkpoint's evaluation, done again, by the metrics' names. Every rank must call it."""
    with _run(config, place, opened, state, _Collector()) as run:
        result: EvalResult = run.evaluate()
    return figures(result)


@contextmanager
def _run(config: Config, place: Place, opened: Opened, state: dict[str, Any], collector: _Collector) -> Iterator[Run]:
    with tempfile.TemporaryDirectory(prefix="audit-") as nowhere:  # a STOP file of the run stops no audit
        run = build_run(
            config,
            place.world,
            place.device,
            train=opened.train,
            val=opened.val,
            engines=opened.engines,
            trackers=[collector],
            requests=StopRequests(Path(nowhere) / "STOP"),
        )
        restore(run, state)
        try:
            yield run
        finally:
            run.close()


@torch.no_grad()
def _shake(run: Run, share: float) -> None:
    """Move every weight by a share of itself, up or down as a generator of its own has it: the same on every rank."""
    generator = torch.Generator().manual_seed(0)
    for parameter in run.model.parameters():
        signs = torch.randint(0, 2, parameter.shape, generator=generator).mul_(2).sub_(1)
        parameter.mul_(1 + share * signs.to(parameter))
