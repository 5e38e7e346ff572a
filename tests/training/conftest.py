"""A run as build.py makes it, in this process, with what goes through it recorded."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from src.batch import Batch, BatchPlan, Engine, Geometry
from src.build import Engines, build_engines, build_run
from src.config import load
from src.data.build import build_sources
from src.distributed import World
from src.machine import settle_torch
from src.training.resume import capture
from src.training.run import Run
from src.training.stopping import StopRequests

ALONE = World(0, 0, 1, 1, under_torchrun=False)
SMALL = (
    "data=synthetic",
    "data.num_train=330",
    "data.num_val=50",
    "data.stored_size=16",
    "data.image_size=16",
    "data.resize_size=18",
)
NET = ("model=small_resnet", "model.width=4", "model.stem_stride=2", "batch_size=32", "schedule.warmup_epochs=1")

MakeRun = Callable[..., Run]


def slow_down(run: Any, seconds: float) -> None:
    """Let every batch of the run come so much later."""
    fast = run.train_batches

    def slow(epoch: int, first_step: int) -> Iterator[Batch]:
        for batch in fast(epoch, first_step):
            time.sleep(seconds)
            yield batch

    run.train_batches = slow


class Recorder:
    """An engine that keeps a copy of what another one made."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.seen, self.pixels = engine, list[Batch](), engine.pixels

    def batches(self, plans: Iterator[BatchPlan], *, geometry: Geometry) -> Iterator[Batch]:
        for batch in self.engine.batches(plans, geometry=geometry):
            self.seen.append(Batch(batch.images.clone(), batch.labels.clone(), batch.plan))
            yield batch

    def close(self) -> None:
        self.engine.close()


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[MakeRun]:
    """Build a run from overrides; `run.recorder.seen` holds its training batches, `run.states` what it saved."""
    opened: list[Engines] = []

    def make(*overrides: str, base: Sequence[str] = (*SMALL, *NET)) -> Any:
        config = load([*base, *overrides])
        settle_torch(threads=1, deterministic=False)
        train, val = build_sources(config.data, threads=1, progress=lambda done, total: None)
        engines = build_engines(config, ALONE, torch.device("cpu"), train, val)
        recorder = Recorder(engines.train)
        opened.append(engines)
        states: list[dict[str, Any]] = []

        def keep(run: Run) -> Callable[[], bool]:
            states.append(capture(run, config=config.model_dump(mode="json"), classes=train.classes))
            return lambda: True

        run: Any = build_run(
            config,
            ALONE,
            torch.device("cpu"),
            train=train,
            val=val,
            engines=Engines(recorder, engines.val),
            trackers=[],
            requests=StopRequests(tmp_path / "STOP"),
            write_checkpoint=keep,
        )
        run.recorder, run.states, run.config = recorder, states, config
        return run

    yield make
    for engines in opened:
        engines.close()


def copy_of(value: Any) -> Any:
    """Copy nested containers, tensors included: a run that a state was put into may share its memory."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: copy_of(item) for key, item in value.items()}
    return [copy_of(item) for item in value] if isinstance(value, list) else value


def differing(one: Any, other: Any, path: str = "") -> list[str]:
    """Name every place where two states are not equal bit for bit."""
    if isinstance(one, torch.Tensor):
        return [] if isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other) else [path]
    if isinstance(one, dict) and isinstance(other, dict):
        keys = dict.fromkeys([*one, *other])
        return [place for key in keys for place in differing(one.get(key), other.get(key), f"{path}.{key}")]
    if isinstance(one, list | tuple) and len(one) == len(other):
        return [place for i, (a, b) in enumerate(zip(one, other, strict=True)) for place in differing(a, b, f"{path}.{i}")]
    return [] if one == other else [path]
