"""What depends on the step or the epoch, as pure functions. No torch schedulers: they hold state."""

import math
from collections.abc import Callable
from typing import assert_never

from src.config.schedule import Constant, Cosine, ScheduleConfig

LrFactor = Callable[[int], float]


def build_lr_factor(config: ScheduleConfig, *, steps_per_epoch: int, total_steps: int) -> LrFactor:
    """Return the function from step to lr_factor, the multiplier of peak_lr for the update that leads from step to step + 1.

    The warm-up is linear from warmup_from at step 0 to 1 at its end.
    """
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    match config:
        case Cosine():
            floor = config.floor

            def after_warmup(step: int) -> float:
                progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
                return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

        case Constant():

            def after_warmup(step: int) -> float:
                return 1.0

        case _:
            assert_never(config)

    def lr_factor(step: int) -> float:
        if step < warmup_steps:
            return config.warmup_from + (1 - config.warmup_from) * step / warmup_steps
        return after_warmup(step)

    return lr_factor


def image_size_at(epoch: int, *, image_size: int) -> int:
    """Return the side of training images in an epoch, counted from 0. Constant so far; a progressive size is another function."""
    return image_size
