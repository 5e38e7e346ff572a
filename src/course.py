"""The course of a run, for people: what happens when, at which rate and size, in words and as a picture."""

from itertools import groupby
from pathlib import Path
from typing import NamedTuple, assert_never

import numpy as np

from src.config import Config, ConfigError, Problem
from src.config.average import EmaKeys, EvaluateEma, EvaluateEmaSwa, EvaluateScheduleFree, EvaluateSwa, EvaluateTrained, SwaKeys
from src.config.identity import run_name
from src.config.schedule import Cosine, Exponential, Step
from src.tracking.plots import Mark, save_png, schedule_figure
from src.training.arithmetic import Arithmetic
from src.training.schedule import build_lr_at, image_size_at

_POINTS = 4000  # of the drawn curve, beside the first and last step of each epoch
_SHOWN_SIZES = 6


class Course(NamedTuple):
    """What a run does when.

    Attributes:
        steps: the steps that are looked at: of a long run not all, but every epoch's first and last and those around every mark.
        rates: the learning rate at each of them.
        sizes: side in pixels of each epoch's training images.
        marks: moments worth telling, within the run.
        total_steps: of the run.
    """

    steps: list[int]
    rates: list[float]
    sizes: list[int]
    marks: list[Mark]
    total_steps: int

    @classmethod
    def of(cls, config: Config, arithmetic: Arithmetic) -> "Course":
        """Lay out a run."""
        a_epoch, total = arithmetic.steps_per_epoch, arithmetic.total_steps
        moments = [Mark(config.schedule.warmup_epochs, "warm-up ends")]
        if isinstance(config.schedule, Cosine) and config.schedule.hold_epochs:
            moments.append(Mark(config.schedule.warmup_epochs + config.schedule.hold_epochs, "cosine begins"))
        if isinstance(config.average, EmaKeys):
            moments.append(Mark(config.average.start_epoch, "EMA starts"))
        if isinstance(config.average, SwaKeys):
            moments.append(Mark(config.average.swa_start_epoch, "SWA starts"))
        marks = [mark for mark in moments if 0 < mark.epoch < config.epochs]
        around = [round(mark.epoch * a_epoch) + near for mark in marks for near in (-1, 0, 1)]
        firsts = np.arange(0, total, a_epoch)
        grid = np.linspace(0, total - 1, min(total, _POINTS)).astype(np.int64)
        looked_at = np.unique(np.concatenate([grid, firsts, firsts + a_epoch - 1, [total // 2], np.array(around, dtype=np.int64)]))
        steps: list[int] = looked_at[(looked_at >= 0) & (looked_at < total)].tolist()
        lr_at = build_lr_at(config, steps_per_epoch=a_epoch, total_steps=total)
        sizes = [image_size_at(epoch, config.data) for epoch in range(config.epochs)]
        return cls(steps, [lr_at(step) for step in steps], sizes, marks, total)

    @property
    def ramps(self) -> bool:
        """Whether the image size changes."""
        return len(set(self.sizes)) > 1


def rate_rows(config: Config, course: Course) -> dict[str, str]:
    """Tell the learning rate, what lr_scaling did to it, and the image sizes."""
    at = dict(zip(course.steps, course.rates, strict=True))
    peak = max(course.steps, key=lambda step: at[step])  # the first of equals
    middle = course.total_steps // 2
    rows = {
        "learning rate": f"{course.rates[0]:.5g} first, {at[peak]:.5g} at step {peak:,} (the peak), "
        f"{at[middle]:.5g} at step {middle:,} (the middle), {course.rates[-1]:.5g} last"
    }
    optim = config.optim
    if optim.lr_for(config.batch_size) != optim.peak_lr:
        rows["  lr_scaling"] = (
            f"{optim.lr_scaling}: {optim.peak_lr:.5g} for {optim.reference_batch_size:,} images is "
            f"{optim.lr_for(config.batch_size):.5g} for {config.batch_size:,}"
        )
    if course.ramps:
        rows["image sizes"] = describe_sizes(course.sizes)
    return rows


def describe_sizes(sizes: list[int]) -> str:
    """Return in words which image size holds to which epoch."""
    stretches: list[tuple[int, int]] = []  # (size, its last epoch)
    for size, epochs in groupby(range(len(sizes)), key=lambda epoch: sizes[epoch]):
        stretches.append((size, max(epochs)))
    shown = stretches if len(stretches) <= _SHOWN_SIZES else [stretches[0], *stretches[-2:]]
    words = [f"{size} px to epoch {last}" for size, last in shown[:-1]]
    words.append(f"{stretches[-1][0]} px from epoch {stretches[-2][1] + 1}")
    if len(shown) < len(stretches):
        words.insert(1, f"{len(stretches) - len(shown)} sizes in between")
    return ", ".join(words)


def describe_evaluation(config: Config) -> str:
    """Return in words at which weights accuracy is measured."""
    average = config.average
    match average:
        case EvaluateTrained():
            return "the trained weights"
        case EvaluateScheduleFree():
            what = "schedule-free's x"
        case EvaluateEma():
            what = f"their moving average ({_ema(average)})"
        case EvaluateSwa():
            what = f"the trained weights, {_swa(average)}"
        case EvaluateEmaSwa():
            what = f"their moving average ({_ema(average)}), {_swa(average)}"
        case _:
            assert_never(average)
    if average.recalibrate_images:
        what += f"; BatchNorm from {average.recalibrate_images:,} training images"
    return what + ("; the trained weights as well" if average.evaluate_trained else "")


def _ema(average: EmaKeys) -> str:
    kept = f"decay {average.decay:g}" if average.decay is not None else f"half-life {average.half_life_steps:g} steps"
    return f"{kept}, every {'step' if average.every_steps == 1 else f'{average.every_steps} steps'}"


def _swa(average: SwaKeys) -> str:
    every = "epoch" if average.swa_every_steps is None else f"{average.swa_every_steps:,} steps"
    rate = "" if average.swa_lr is None else f", lr to {average.swa_lr:g} in {average.swa_anneal_epochs:g} epochs"
    return f"from epoch {average.swa_start_epoch:g} on their mean (once every {every}{rate})"


def draw(config: Config, arithmetic: Arithmetic, course: Course) -> Path:
    """Draw the schedule and return where.

    Raises:
        ConfigError: if it cannot be written.
    """
    path = Path(config.runs_dir).expanduser() / f"{run_name(config)}.schedule.png"
    rates = np.array(course.rates)
    figure = schedule_figure(
        title=run_name(config),
        epochs=np.array(course.steps) / arithmetic.steps_per_epoch,
        rates=rates,
        steps_per_epoch=arithmetic.steps_per_epoch,
        marks=course.marks,
        sizes=course.sizes if course.ramps else None,
        log_scale=isinstance(config.schedule, Step | Exponential) and bool(rates.min() > 0),
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(figure, path)
    except OSError as error:
        fix = f"{path} cannot be written ({error.strerror}). Set runs_dir to a folder that can."
        raise ConfigError("the dry run", [Problem("runs_dir", config.runs_dir, fix)]) from error
    return path
