"""What depends on the step or the epoch, as pure functions. No torch schedulers: they hold state."""

import math
from collections.abc import Callable
from typing import assert_never

import numpy as np

from src.config import Config
from src.config.average import EvaluateEmaSwa, EvaluateSwa
from src.config.data import DataConfig
from src.config.schedule import Constant, Cosine, Exponential, OneCycle, Polynomial, ScheduleConfig, Step, Triangular

LrFactor = Callable[[int], float]


def build_lr_at(config: Config, *, steps_per_epoch: int, total_steps: int) -> Callable[[int], float]:
    """Return the function from step to lr: the peak rate for the batch times lr_factor, and SWA's own rate where it has one.

    SWA's rate is torch.optim.swa_utils.SWALR's (anneal_strategy="cos"), by step: from what the schedule says at the first step of
    swa_start_epoch to swa_lr, by half a cosine over swa_anneal_epochs; there it stays. lr_scaling leaves swa_lr alone.

    Args:
        config: the whole configuration; schedule, optim, average and batch_size count.
        steps_per_epoch: > 0.
        total_steps: of the run, > 0.

    Returns:
        A pure function of the step, 0 to total_steps, to the rate of the update that leads from step to step + 1.
    """
    peak_lr = config.optim.lr_for(config.batch_size)
    lr_factor = build_lr_factor(config.schedule, steps_per_epoch=steps_per_epoch, total_steps=total_steps)

    def scheduled(step: int) -> float:
        return peak_lr * lr_factor(step)

    average = config.average
    if not isinstance(average, EvaluateSwa | EvaluateEmaSwa) or average.swa_lr is None:
        return scheduled
    swa_lr = average.swa_lr
    start = round(average.swa_start_epoch * steps_per_epoch)
    anneal_steps = round(average.swa_anneal_epochs * steps_per_epoch)
    before = scheduled(min(start, total_steps))

    def annealed(step: int) -> float:
        if step < start:
            return scheduled(step)
        if step >= start + anneal_steps:
            return swa_lr
        alpha = _half_cosine((step - start) / anneal_steps)
        return swa_lr * alpha + before * (1 - alpha)

    return annealed


def build_lr_factor(config: ScheduleConfig, *, steps_per_epoch: int, total_steps: int) -> LrFactor:
    """Return the function from step to lr_factor, the multiplier of peak_lr for the update that leads from step to step + 1.

    The warm-up is linear (one_cycle: half a cosine) from warmup_from at step 0 to 1 at its end. `by: epoch` holds the value of an
    epoch's first step for the whole epoch, in the warm-up too.
    """
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if isinstance(config, OneCycle):
        by_step = _one_cycle(config, warmup_steps, total_steps)
    else:
        by_step = _warmed_up(config.warmup_from, warmup_steps, _course(config, warmup_steps, steps_per_epoch, total_steps))
    match config.by:
        case "step":
            return by_step
        case "epoch":
            return lambda step: by_step(step // steps_per_epoch * steps_per_epoch)
        case _:
            assert_never(config.by)


def _warmed_up(warmup_from: float, warmup_steps: int, course: LrFactor) -> LrFactor:
    def lr_factor(step: int) -> float:
        if step < warmup_steps:
            return warmup_from + (1 - warmup_from) * step / warmup_steps
        return course(step)

    return lr_factor


def _course(
    config: Constant | Cosine | Triangular | Step | Polynomial | Exponential,
    warmup_steps: int,
    steps_per_epoch: int,
    total_steps: int,
) -> LrFactor:
    """Return lr_factor from the warm-up's end on."""

    def since(start: int, step: int) -> float:
        return min(1.0, (step - start) / max(1, total_steps - start))

    match config:
        case Constant():
            return lambda step: 1.0
        case Cosine():
            floor, hold_end = config.floor, warmup_steps + round(config.hold_epochs * steps_per_epoch)
            start = 0 if config.counts_warmup else hold_end
            return lambda step: 1.0 if step < hold_end else floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * since(start, step)))
        case Triangular():
            floor = config.floor
            return lambda step: 1 - (1 - floor) * since(warmup_steps, step)
        case Polynomial():
            floor, power = config.floor, config.power
            return lambda step: floor + (1 - floor) * (1 - since(warmup_steps, step)) ** power
        case Step():
            floor, gamma, every_steps = config.floor, config.gamma, max(1, round(config.every_epochs * steps_per_epoch))
            return lambda step: max(floor, gamma ** ((step - warmup_steps) // every_steps))
        case Exponential():
            floor, gamma = config.floor, config.gamma
            return lambda step: max(floor, gamma ** ((step - warmup_steps) / steps_per_epoch))
        case _:
            assert_never(config)


def _one_cycle(config: OneCycle, warmup_steps: int, total_steps: int) -> LrFactor:
    """Follow torch's OneCycleLR: the first phase ends at step warmup_steps - 1, the second at total_steps - 1.

    Without a warm-up torch's first phase ends at step -1, before the run: step 0 already lies a little below the peak.
    """
    warmup_from, floor = config.warmup_from, config.floor
    peak, last = warmup_steps - 1, total_steps - 1

    def lr_factor(step: int) -> float:
        if step < peak:
            return warmup_from + (1 - warmup_from) * _half_cosine(step / peak)
        return 1 + (floor - 1) * _half_cosine(min(1.0, (step - peak) / max(1, last - peak)))

    return lr_factor


def _half_cosine(progress: float) -> float:
    """Rise from 0 to 1 while progress does."""
    return (1 - math.cos(math.pi * progress)) / 2


def image_size_at(epoch: int, data: DataConfig) -> int:
    """Return the side of training images, in pixels, in an epoch, counted from 0.

    FFCV-imagenet's rule: ramp_from_size up to and in ramp_from_epoch, image_size from ramp_to_epoch on, linear in between, rounded
    half to even to a multiple of ramp_multiple. Sizes that are no such multiples are never left towards the outside.
    """
    first, last = data.ramp_from_size, data.image_size
    if first is None:
        return last
    if epoch <= data.ramp_from_epoch:
        return first
    if epoch >= data.ramp_to_epoch:
        return last
    between = float(np.interp(epoch, [data.ramp_from_epoch, data.ramp_to_epoch], [first, last]))
    rounded = round(between / data.ramp_multiple) * data.ramp_multiple
    return min(max(rounded, first), last)
