"""A run's own parts at work for a few seconds, and how long each took: training steps, evaluation, loading, a copy of the state.

Nothing is written, and the run that is built for it is thrown away. It is the real thing: the loop's step with the configured
model, precision, augmentation, optimizer, average and ranks, fed by the run's own loader from the data itself.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from loguru import logger
from torch import Tensor, nn

from src import distributed
from src.batch import Batch, BatchPlan, ResizeCentreCrop
from src.build import build_run
from src.build_model import build_normalise
from src.config import Config
from src.config.average import EmaKeys
from src.config.identity import run_dir
from src.data.plan import eval_plans
from src.first_batch import Ready
from src.session import Place
from src.training.averaging import Average
from src.training.evaluation import count
from src.training.loop import train_step
from src.training.resume import capture
from src.training.run import Run
from src.training.schedule import image_size_at
from src.training.stopping import StopRequests

T = TypeVar("T")
_WINDOWS = 10  # of training: enough to see how far they differ
_PASSES = 3  # of evaluation
_FEWEST = 2  # of either, also where the time is over
_WARM_SHARE, _MOST_WARM_SHARE = 0.15, 0.4  # of the steps: the loader starts with full queues, and a processor with a cool package
_FOR_EVALUATION, _FOR_LOADING = 0.15, 0.05  # of the seconds
_IO = Path("/proc/self/io")


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


class Trial(NamedTuple):
    """What was measured. Seconds are rank 0's, counts are of all ranks.

    Attributes:
        paces: at one image size, or at the smallest and the largest.
        evaluation: seconds an image of each pass over validation images.
        evaluated_images: in each pass.
        loader_rate: images a second that the loaders make while nobody trains.
        save_seconds: that a checkpoint's copy of the state takes. It is written beside training.
        disk_bytes: that came from a disk meanwhile, and not out of memory; None where the system does not tell.
    """

    paces: tuple[Pace, ...]
    evaluation: tuple[float, ...]
    evaluated_images: int
    loader_rate: float
    save_seconds: float
    disk_bytes: int | None


def try_out(config: Config, place: Place, ready: Ready, *, sizes: Sequence[int], seconds: float) -> Trial:
    """Measure for about so many seconds; what is made once, such as a compiled model, comes on top. Every rank must call it.

    Args:
        config: the whole configuration.
        place: where this process stands.
        ready: what the preflight opened.
        sizes: image sizes of training to measure at.
        seconds: for all of it.

    Raises:
        DataError: if an image cannot be read.
    """
    before = _disk_bytes()
    generators = [place.device] if place.device.type == "cuda" else []
    with torch.random.fork_rng(generators):
        run = build_run(
            _averaging_from_the_start(config),
            place.world,
            place.device,
            train=ready.train,
            val=ready.val,
            engines=ready.engines,
            trackers=[],
            requests=StopRequests(run_dir(config) / "STOP"),
            write_checkpoint=lambda _: lambda: True,
            after_each_step=lambda: None,
        )
        run.average = _InOrder(run.average)
        for_training = seconds * (1 - _FOR_EVALUATION - _FOR_LOADING)
        paces = tuple(time_steps(run, config, size, seconds=for_training / len(sizes)) for size in sizes)
        evaluation, images = time_evaluation(run, config, place, ready, seconds=seconds * _FOR_EVALUATION)
        rate = loader_rate(run, _first_epoch(config, sizes[-1]), seconds=seconds * _FOR_LOADING)
        start = time.monotonic()
        capture(run, config={}, classes=ready.train.classes)
        save_seconds = time.monotonic() - start
        run.close()
    after = _disk_bytes()
    return Trial(paces, evaluation, images, rate, save_seconds, None if before is None or after is None else after - before)


def time_steps(run: Run, config: Config, image_size: int, *, seconds: float) -> Pace:
    """Train steps of an epoch that has this image size, again and again, and time them in windows. Every rank must call it."""
    begin, unit = time.monotonic(), config.optim.sam_every_steps if config.optim.sam_rho is not None else 1
    epoch = _first_epoch(config, image_size)
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
    data, world = config.data, place.world
    plans = list(eval_plans(ready.val.sizes, batch_size=config.eval_batch_size, rank=world.rank, world_size=world.size))
    geometry = ResizeCentreCrop(data.resize_size, data.eval_image_size, data.eval_interpolation)
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


class _InOrder:
    """An average that sees the trial's steps counted from 1, whichever steps of the run they are."""

    def __init__(self, average: Average) -> None:
        self._average, self._step = average, 0
        self.name, self.recalibrate_images = average.name, average.recalibrate_images

    def update(self, model: nn.Module, step: int, moved: Tensor | None) -> None:
        """Count a step."""
        self._step += 1
        self._average.update(model, self._step, moved)

    def swap_in(self, model: nn.Module) -> None:
        """Hand on."""
        self._average.swap_in(model)

    def swap_out(self) -> None:
        """Hand on."""
        self._average.swap_out()

    def state(self) -> dict[str, object]:
        """Hand on."""
        return self._average.state()

    def load(self, state: dict[str, object]) -> None:
        """Hand on."""
        self._average.load(state)


def _averaging_from_the_start(config: Config) -> Config:
    """Let a moving average begin at once, so that its cost is seen."""
    if not isinstance(config.average, EmaKeys):
        return config
    return config.model_copy(update={"average": config.average.model_copy(update={"start_epoch": 0.0})})


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


def _first_epoch(config: Config, image_size: int) -> int:
    return next(epoch for epoch in range(config.epochs) if image_size_at(epoch, config.data) == image_size)


def _disk_bytes() -> int | None:
    """Return what this process has caused to be fetched from storage (proc(5), read_bytes), or None where nobody counts."""
    try:
        lines = dict(line.split(": ", 1) for line in _IO.read_text().splitlines())
        return int(lines["read_bytes"])
    except (OSError, KeyError, ValueError):
        return None
