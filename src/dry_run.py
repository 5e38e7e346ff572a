"""`dry_run=true`: the plan of a run, without training: arithmetic, layers, FLOPs, memory, and what the loader must deliver.

The schedule is drawn as `<runs_dir>/<run_name>.schedule.png`; nothing else is written.
"""

from itertools import groupby
from pathlib import Path
from typing import NamedTuple, assert_never

import numpy as np
from loguru import logger
from rich.table import Table
from torch import nn

from src.build_model import begin_from_weights, build_live_model
from src.config import Config, ConfigError, Problem
from src.config.average import EmaKeys, EvaluateEma, EvaluateEmaSwa, EvaluateScheduleFree, EvaluateSwa, EvaluateTrained, SwaKeys
from src.config.identity import run_name
from src.config.schedule import Cosine, Exponential, Step
from src.first_batch import Ready
from src.memory import Need, checkpoint_bytes, fixed_bytes, gib, room_of
from src.probe import Probe, layer_table
from src.session import Place, device_name
from src.tracking.plots import Mark, save_png, schedule_figure
from src.training.arithmetic import Arithmetic, plan_arithmetic
from src.training.precision import choose_precision
from src.training.schedule import build_lr_at, image_size_at

_POINTS = 4000  # of the drawn curve, beside the first and last step of each epoch
_SHOWN_SIZES = 6


def check_and_plan(config: Config, place: Place, ready: Ready) -> None:
    """Print the plan of the run and draw its schedule. The preflight has passed.

    Raises:
        ConfigError: if the model does not take the weights or the sizes that it is to be given, or the picture cannot be written.
    """
    train, val = ready.train, ready.val
    arithmetic = plan_arithmetic(config, num_train=len(train), world_size=place.world.size)
    precision = choose_precision(config.precision, place.device)
    num_classes = len(train.classes)
    model = build_live_model(config, precision, place.device, num_classes=num_classes)
    begin_from_weights(config, model)
    course = Course.of(config, arithmetic)
    probe = Probe(config, place, model, local_batch_size=arithmetic.local_batch_size, num_classes=num_classes)
    costs = cost_rows(config, place, arithmetic, course, model, probe, num_classes)
    rows = {
        "run": run_name(config),
        "device": f"{place.world.size} x {device_name(place.device)}, {precision.name}",
        "images": f"{len(train):,} train, {len(val):,} val, {num_classes:,} classes",
        "batch": arithmetic.describe_batch(),
        "steps": f"{arithmetic.total_steps:,} = {config.epochs} epochs x {arithmetic.steps_per_epoch:,}",
        **rate_rows(config, course),
        "drawn in": str(draw(config, arithmetic, course)),
        "evaluated at": describe_evaluation(config),
        **costs,
        "loading, a rank": ready.first.describe(),
    }
    plan = Table(title="plan of the run", show_header=False, title_justify="left")
    for name, value in rows.items():
        plan.add_row(name, value)
    place.console.print(layer_table(model, config.data.image_size, place.device), plan)
    logger.info("dry run: nothing was trained, and nothing written but the picture of the schedule")


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


def cost_rows(
    config: Config, place: Place, arithmetic: Arithmetic, course: Course, model: nn.Module, probe: Probe, num_classes: int
) -> dict[str, str]:
    """Measure and tell FLOPs, memory and time. Each epoch counts at its own image size, its rate scaled from the measured one."""
    image_size = config.data.image_size
    keys = dict.fromkeys(course.sizes, "data.ramp_from_size") | {image_size: "data.image_size"}
    flops = {size: probe.flops_an_image(size, key=key) for size, key in keys.items()}
    evaluation_flops = probe.flops_an_image(config.data.eval_image_size, key="data.eval_image_size")
    saved = probe.saved_bytes_an_image()
    rate = probe.images_per_second()

    passes, more = 1.0, ""
    if config.optim.sam_rho is not None:
        every = config.optim.sam_every_steps
        passes = 1 + -(-arithmetic.total_steps // every) / arithmetic.total_steps
        more = f"; {passes:.4g} passes a step, with SAM every {'step' if every == 1 else f'{every} steps'}"
    forwards = 4 if config.model.gradient_checkpointing else 3
    images_an_epoch = arithmetic.steps_per_epoch * arithmetic.batch_size
    total_flops = forwards * passes * images_an_epoch * sum(flops[size] for size in course.sizes)
    total_rate = rate * place.world.size
    seconds = sum(passes * images_an_epoch * flops[size] / flops[image_size] / total_rate for size in course.sizes)

    need = Need(fixed_bytes(config, num_classes), saved)
    rows = {
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        "arithmetic": f"{flops[image_size] / 1e9:.3g} GFLOP an image forward at {image_size} px, two a multiply-add",
        "  evaluation": f"{evaluation_flops / 1e9:.3g} GFLOP an image at {config.data.eval_image_size} px",
        "  in all": f"{total_flops / 1e18:.3g} EFLOP, forward and backward taken for {forwards} forwards{more}",
        "memory a rank": f"about {gib(need.of(arithmetic.local_batch_size))}{room_of(place.device)}",
        "  weights and states": f"{gib(need.fixed)} with gradients and optimizer",
        "  activations": f"{saved / 2**20:.1f} MiB an image",
        "checkpoint": f"{checkpoint_bytes(config, num_classes) / 2**20:.0f} MiB",
        "one rank trains": f"{_rounded(rate / passes)} images/s at {image_size} px without loading "
        f"(measured: {probe.timed_steps} steps of {probe.num_images})",
        "loader must deliver": f"{_rounded(total_rate / passes)} images/s over all ranks, not to hold training up",
        "training takes": f"about {seconds / 3600:,.2f} h at that rate, evaluation apart",
    }
    for number, hours in enumerate(config.target_hours):
        needed = arithmetic.total_steps * arithmetic.batch_size / (hours * 3600)
        rows[f"target {number + 1}"] = f"training in {hours:g} h takes {needed:,.0f} images/s over all ranks"
    return rows


def _rounded(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


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
