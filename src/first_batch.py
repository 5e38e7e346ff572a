"""The first batch, drawn before anything is trained: a broken image, file or engine is met now, and the rate of loading is told."""

import time
from collections.abc import Iterator
from typing import NamedTuple

import torch

from src.batch import BatchPlan, DataError, Engine, Geometry, Source
from src.build import Engines
from src.build_plans import eval_geometry, train_geometry, train_plans, val_plans
from src.config import Config, Problem
from src.session import Place
from src.training.arithmetic import Arithmetic

_MOST_IMAGES = 256  # of each split: enough to tell a rate, little enough to cost a second


class FirstBatch(NamedTuple):
    """How long a batch of each split took, from cold.

    Attributes:
        images: of the training batch.
        seconds: of the training batch.
        val_images: of the validation batch; 0 where this rank evaluates none.
        val_seconds: of the validation batch.
    """

    images: int
    seconds: float
    val_images: int
    val_seconds: float

    def describe(self) -> str:
        """Return it for people."""
        told = f"first batch of {self.images} images in {self.seconds:.2f} s: {self.images / max(self.seconds, 1e-9):,.0f} images/s"
        if not self.val_images:
            return f"{told}, from cold"
        return f"{told}, {self.val_images} to evaluate in {self.val_seconds:.2f} s, from cold"


class Ready(NamedTuple):
    """What the preflight opened and found right."""

    train: Source
    val: Source
    engines: Engines
    first: FirstBatch


class Drawn(NamedTuple):
    """What came of drawing: the times, or what is wrong, and the error behind it."""

    first: FirstBatch
    problems: list[Problem]
    error: DataError | None


def draw_first(config: Config, place: Place, arithmetic: Arithmetic, train: Source, val: Source, engines: Engines) -> Drawn:
    """Draw this rank's first training micro-batch and its first validation batch. No effect on the run: engines are pure."""
    plans: tuple[Iterator[BatchPlan], Iterator[BatchPlan]] = (
        train_plans(config, arithmetic, train, rank=place.world.rank, epoch=0, first_step=0),
        val_plans(config, val, place.world),
    )
    geometries: tuple[Geometry, Geometry] = (train_geometry(config, 0), eval_geometry(config))
    timed, problems, met = list[tuple[int, float]](), list[Problem](), None
    for engine, split_plans, geometry in zip(engines, plans, geometries, strict=True):
        try:
            timed.append(_draw_one(engine, split_plans, geometry, place.device))
        except DataError as error:
            timed.append((0, 0.0))
            problems.append(Problem("data", config.data.name, str(error)))
            met = error
    (images, seconds), (val_images, val_seconds) = timed
    return Drawn(FirstBatch(images, seconds, val_images, val_seconds), problems, met)


def _draw_one(engine: Engine, plans: Iterator[BatchPlan], geometry: Geometry, device: torch.device) -> tuple[int, float]:
    plan = next(plans, None)
    if plan is None:  # fewer validation batches than ranks
        return 0, 0.0
    start, images = time.monotonic(), 0
    part = BatchPlan(plan.ids[:_MOST_IMAGES], plan.keys[:_MOST_IMAGES], plan.crops[:_MOST_IMAGES], plan.flips[:_MOST_IMAGES])
    for batch in engine.batches(iter([part]), geometry=geometry):
        images += len(batch.images)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return images, time.monotonic() - start
