"""A run's own parts at work for a few seconds, and how long each took: training steps, evaluation, loading, a copy of the state.

Nothing is written, and the run that is built for it is thrown away. It is the real thing: the loop's step with the configured
model, precision, augmentation, optimizer, average and ranks, fed by the run's own loader from the data itself.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from src.build import build_run
from src.config import Config
from src.config.average import EmaKeys
from src.config.identity import run_dir
from src.first_batch import Ready
from src.session import Place
from src.timing import Pace, first_epoch, loader_rate, time_evaluation, time_steps
from src.training.averaging import Average
from src.training.resume import capture
from src.training.stopping import StopRequests

_FOR_EVALUATION, _FOR_LOADING = 0.15, 0.05  # of the seconds
_IO = Path("/proc/self/io")


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
        )
        run.average = _InOrder(run.average)
        for_training = seconds * (1 - _FOR_EVALUATION - _FOR_LOADING)
        paces = tuple(time_steps(run, config, size, seconds=for_training / len(sizes)) for size in sizes)
        evaluation, images = time_evaluation(run, config, place, ready, seconds=seconds * _FOR_EVALUATION)
        rate = loader_rate(run, first_epoch(config, sizes[-1]), seconds=seconds * _FOR_LOADING)
        start = time.monotonic()
        capture(run, config={}, classes=ready.train.classes)
        save_seconds = time.monotonic() - start
        run.close()
    after = _disk_bytes()
    return Trial(paces, evaluation, images, rate, save_seconds, None if before is None or after is None else after - before)


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


def _disk_bytes() -> int | None:
    """Return what this process has caused to be fetched from storage (proc(5), read_bytes), or None where nobody counts."""
    try:
        lines = dict(line.split(": ", 1) for line in _IO.read_text().splitlines())
        return int(lines["read_bytes"])
    except (OSError, KeyError, ValueError):
        return None
