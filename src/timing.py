"""How long the parts of a live run take: its training steps, its evaluation, its loader. What src/trial.py measures with."""

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple, TypeVar

import torch
from loguru import logger

from src import distributed
from src.batch import Batch, BatchPlan
from src.build_model import build_normalise
from src.build_plans import eval_geometry, val_plans
from src.config import Config
from src.first_batch import Ready
from src.session import Place
from src.training.evaluation import count
from src.training.loop import train_step
from src.training.run import Run
from src.training.schedule import image_size_at

T = TypeVar("T")
_WINDOWS = 10  # of training: enough to see how far they differ
_PASSES = 3  # of evaluation
_FEWEST = 2  # of either, also where the time is over
_WARM_SHARE, _MOST_WARM_SHARE = 0.15, 0.4  # of the steps: the loader starts with full queues, and a processor with a cool package


class Pace(NamedTuple):
    """How long training steps took at one image size, warm-up left out.

    Attributes:
        image_size: of the images.
        windows: mean seconds of a step in each window.
        steps: in each window.
        waiting: share of the time that was blocked on data.
        first_seconds: of the very first step, in which what is made once is made: tuned, compiled, allocated.
    """

    image_size: int
    windows: tuple[float, ...]
    steps: int
    waiting: float
    first_seconds: float

    @property
    def seconds(self) -> float:
        """Mean seconds of a step."""
        return sum(self.windows) / len(self.windows)


def time_steps(run: Run, config: Config, image_size: int, *, seconds: float) -> Pace:
    """Train steps of an epoch that has this image size, again and again, and time them in windows. Every rank must call it."""
    begin, unit = time.monotonic(), config.optim.sam_every_steps if config.optim.sam_rho is not None else 1
    epoch = first_epoch(config, image_size)
    with closing(_again_and_again(run, epoch * run.arithmetic.steps_per_epoch)) as batches, run.clock.running():
        first, _ = _window(run, batches, 1)
        seen, waiting = _window(run, batches, 1)
        left = min(run.total_steps, (begin + seconds + first - time.monotonic()) / seen)
        warm = min(max(config.data.prefetch + 1, _WARM_SHARE * left), _MOST_WARM_SHARE * left)
        if (warm := distributed.from_rank_0(lambda: int(warm))) > 0:
            seen, waiting = _window(run, batches, warm)
        left = min(run.total_steps, (begin + seconds + first - time.monotonic()) / seen)
        windows, steps = distributed.from_rank_0(lambda: windows_of(int(left), unit))
        timed = in_time([lambda: _window(run, batches, steps)] * windows, until=begin + seconds + first) or [(seen, waiting)]
    if epoch == 0 and not math.isfinite(run.meter.window().loss):
        logger.warning("the loss was not finite at the end of the first steps: lower optim.peak_lr, or set max_grad_norm=1.0")
    whole = sum(pace for pace, _ in timed)
    return Pace(image_size, tuple(pace for pace, _ in timed), max(steps, 1), sum(a * b for a, b in timed) / whole, first)


def in_time(windows: Sequence[Callable[[], T]], *, until: float) -> list[T]:
    """Time one window after the other, the later ones only while there is time, by rank 0's clock: machines become slow."""
    timed: list[T] = []
    for window in windows:
        timed.append(window())
        if len(timed) >= _FEWEST and distributed.from_rank_0(lambda: time.monotonic() > until):
            break
    return timed


def windows_of(steps: int, unit: int) -> tuple[int, int]:
    """Return how many windows of how many steps fit into some steps; a window is whole units where that leaves two of them."""
    windows = min(_WINDOWS, steps // unit)
    if windows >= 2:
        return windows, steps // windows // unit * unit
    return min(_WINDOWS, steps), 1 if steps > 0 else 0


def time_evaluation(run: Run, config: Config, place: Place, ready: Ready, *, seconds: float) -> tuple[tuple[float, ...], int]:
    """Evaluate validation images as the run does, the whole split where time suffices. Every rank must call it.

    Returns:
        seconds an image in each pass, and the images of a pass, over all ranks.
    """
    plans, geometry = list(val_plans(config, ready.val, place.world)), eval_geometry(config)
    normalise = build_normalise(config, run.precision, place.device)

    def evaluate(part: Sequence[BatchPlan]) -> tuple[float, int]:
        images = sum(distributed.gather(sum(len(plan.ids) for plan in part)))
        start = time.monotonic()
        count(
            run.model,
            ready.engines.val.batches(iter(part), geometry=geometry),
            normalise=normalise,
            precision=run.precision,
            num_images=images,
            protocol={},
            device=place.device,
            flip=config.test_time_augmentation == "flip",
        )
        return (time.monotonic() - start) / images, images

    begin, was_training = time.monotonic(), run.model.training
    run.model.eval()
    pace, images = evaluate(plans[:2])  # fills what is filled once; rank 0 has the most batches
    a_batch = pace * images / max(1, len(plans[:2]))
    batches, passes = distributed.from_rank_0(lambda: passes_of(seconds, a_batch))
    timed = in_time([lambda: evaluate(plans[:batches])] * passes, until=begin + seconds)
    run.model.train(was_training)
    return tuple(pace for pace, _ in timed), timed[0][1]


def passes_of(seconds: float, a_batch: float) -> tuple[int, int]:
    """Return how many batches a pass of evaluation takes, and how many passes there are in some seconds."""
    batches = int(seconds / _PASSES / a_batch)
    return max(1, batches), _PASSES if batches > 0 else 1


def loader_rate(run: Run, epoch: int, *, seconds: float) -> float:
    """Return how many images a second all ranks' loaders make, each for itself and nothing else to do. Every rank must call it."""
    images, start = 0, time.monotonic()
    with closing(_batches(run, epoch)) as batches:
        next(batches, None)  # from here on the pipeline runs
        begin = time.monotonic()
        for batch in batches:
            images += len(batch.images)
            if time.monotonic() - start > seconds:
                break
        if run.device.type == "cuda":
            torch.cuda.synchronize(run.device)
        rate = images / max(time.monotonic() - begin, 1e-9)
    return float(sum(distributed.gather(rate)))


def first_epoch(config: Config, image_size: int) -> int:
    """Return the first epoch that trains at an image size."""
    return next(epoch for epoch in range(config.epochs) if image_size_at(epoch, config.data) == image_size)


def _window(run: Run, batches: Iterator[Batch], steps: int) -> tuple[float, float]:
    """Train so many steps and wait for the device, as a log does. Returns seconds a step, and the share that waited for data."""
    run.clock.window()
    for _ in range(steps):
        train_step(run, batches)
        run.step += 1
        run.stop_requested()
    run.meter.window()
    if run.device.type == "cuda":
        torch.cuda.synchronize(run.device)
    timing = run.clock.window()
    return timing.seconds / steps, timing.waited / max(timing.seconds, 1e-9)


def _again_and_again(run: Run, first: int) -> Generator[Batch, None, None]:
    """Yield this rank's micro-batches of one epoch, over and over: its images have its size."""
    while True:
        run.step = first
        yield from run.epoch_batches()


def _batches(run: Run, epoch: int) -> Generator[Batch, None, None]:
    yield from run.train_batches(epoch, 0)
