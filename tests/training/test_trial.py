"""What a dry run measures is what the loop does: the same pace, the loader told apart from the model, and no trace left behind."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from src import timing
from src import trial as trial_module
from src.batch import Batch, BatchPlan, Engine, Geometry
from src.build import Engines, build_engines
from src.config import Config, load
from src.data.build import build_sources
from src.first_batch import FirstBatch, Ready
from src.forecast import bound_by, spread
from src.machine import settle_torch
from src.session import Place
from src.training.loop import train_epoch
from src.trial import Trial, try_out
from tests.training.conftest import ALONE, NET, SMALL, slow_down

PLACE = Place(ALONE, torch.device("cpu"), Console(stderr=True))
Try = Callable[..., Trial]


class Slow:
    """An engine that takes its time for every batch."""

    def __init__(self, engine: Engine, seconds: float) -> None:
        self._engine, self._seconds, self.pixels = engine, seconds, engine.pixels
        self.made = 0

    def batches(self, plans: Iterator[BatchPlan], *, geometry: Geometry) -> Iterator[Batch]:
        for batch in self._engine.batches(plans, geometry=geometry):
            time.sleep(self._seconds)
            self.made += 1
            yield batch

    def close(self) -> None:
        self._engine.close()


@pytest.fixture
def ready_of() -> Iterator[Callable[..., tuple[Config, Ready]]]:
    """Open the data of some overrides, with engines that may be slow."""
    opened: list[Engines] = []

    def ready(*overrides: str, train_seconds: float = 0.0, val_seconds: float = 0.0) -> tuple[Config, Ready]:
        config = load([*SMALL, *NET, *overrides])
        settle_torch(threads=1, deterministic=False)
        train, val = build_sources(config.data, threads=1, progress=lambda done, total: None)
        engines = build_engines(config, ALONE, torch.device("cpu"), train, val)
        opened.append(engines)
        slow = Engines(Slow(engines.train, train_seconds), Slow(engines.val, val_seconds))
        return config, Ready(train, val, slow, FirstBatch(0, 0.0, 0, 0.0))

    yield ready
    for engines in opened:
        engines.close()


def test_a_loader_that_is_waited_for_is_found_out_and_so_is_its_pace(ready_of: Any) -> None:
    config, ready = ready_of("epochs=9", train_seconds=0.1)
    found = try_out(config, PLACE, ready, sizes=[16], seconds=3)
    (pace,) = found.paces
    assert 0.1 <= spread(pace.windows).expected < 2
    assert len(pace.windows) >= 2
    assert bound_by(found) == "data"
    assert 100 < found.loader_rate <= 1.02 * 32 / 0.1


def test_a_model_that_computes_is_not_taken_for_a_slow_loader(ready_of: Any) -> None:
    config, ready = ready_of("epochs=4", "model.width=48", "model.stem_stride=1")
    found = try_out(config, PLACE, ready, sizes=[16], seconds=2)
    assert bound_by(found) == "compute"
    assert found.loader_rate > 32 / found.paces[0].seconds, "it makes more than is trained"


def test_evaluation_is_timed_by_itself_over_the_whole_split(ready_of: Any) -> None:
    config, ready = ready_of("epochs=1", "eval_batch_size=10", val_seconds=0.05)
    found = try_out(config, PLACE, ready, sizes=[16], seconds=20)
    assert found.evaluated_images == 50
    assert len(found.evaluation) == 3
    assert 0.005 <= spread(found.evaluation).expected < 0.05 * 8, (
        "a twentieth of a second for ten images, and a little for the model"
    )


def test_of_a_large_split_a_part_is_evaluated(ready_of: Any) -> None:
    config, ready = ready_of("epochs=1", "eval_batch_size=2", "data.num_val=400", val_seconds=0.02)
    found = try_out(config, PLACE, ready, sizes=[16], seconds=6)
    assert found.evaluated_images < 400
    assert ready.engines.val.made < 200, "not once through the split"


def test_the_trials_pace_is_the_loops(make_run: Any, ready_of: Any) -> None:
    """A sleeping loader sets the pace, so that a busy machine disturbs neither much. How exact it is: estimate_accuracy.py."""
    config, ready = ready_of("epochs=9", "optim=sam", "average=ema", train_seconds=0.05)
    found = try_out(config, PLACE, ready, sizes=[16], seconds=4)
    run = make_run("epochs=9", "optim=sam", "average=ema")
    slow_down(run, 0.05)
    with run.clock.running():
        train_epoch(run)
    took = run.clock.epoch().seconds / run.arithmetic.steps_per_epoch
    assert took == pytest.approx(spread(found.paces[0].windows).expected, rel=0.35)


def test_a_window_tells_the_mean_of_its_steps(make_run: Any) -> None:
    run = make_run()
    slow_down(run, 0.2)
    with run.clock.running():
        seconds, waiting = timing._window(run, run.epoch_batches(), 6)
    assert 0.2 <= seconds < 4
    assert 0.2 < waiting <= 1
    assert run.step == 6


def test_nothing_is_left_behind(ready_of: Any, tmp_path: Path) -> None:
    config, ready = ready_of(f"runs_dir={tmp_path}", "average=ema", "average.start_epoch=1", "epochs=2")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    try_out(config, PLACE, ready, sizes=[16], seconds=0.5)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "overrides",
    [
        ("average=ema", "average.start_epoch=3", "epochs=4"),
        ("average=swa", "average.swa_start_epoch=1", "epochs=4"),
        ("average=ema_swa", "average.swa_start_epoch=2", "epochs=4"),
        ("optim=sf_sgd",),
        ("optim=sam", "optim.sam_every_steps=3"),
        ("precision=fp16", "max_local_batch_size=16"),
        ("data.ramp_from_size=8", "data.ramp_from_epoch=1", "data.ramp_to_epoch=3", "data.ramp_multiple=4", "epochs=5"),
    ],
    ids=" ".join,
)
def test_whatever_a_run_does_can_be_tried(ready_of: Any, overrides: tuple[str, ...]) -> None:
    config, ready = ready_of(*overrides)
    sizes = [8, 16] if "epochs=5" in overrides else [16]
    found = try_out(config, PLACE, ready, sizes=sizes, seconds=0.5)
    assert [pace.image_size for pace in found.paces] == sizes
    assert all(pace.seconds > 0 and pace.first_seconds > 0 for pace in found.paces)
    assert found.loader_rate > 0 and found.save_seconds > 0


def test_a_moving_average_is_updated_in_the_trial_as_it_will_be_later(ready_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins in the last epoch, but costs time at every step from there on: the trial has it from the start."""
    config, ready = ready_of("average=ema", "average.start_epoch=3", "epochs=4")
    steps: list[int] = []
    real = trial_module._InOrder.update

    def update(self: Any, model: Any, step: int, moved: Any) -> None:
        real(self, model, step, moved)
        steps.append(self._average.begun)

    monkeypatch.setattr(trial_module._InOrder, "update", update)
    try_out(config, PLACE, ready, sizes=[16], seconds=0.5)
    assert steps and all(steps)
