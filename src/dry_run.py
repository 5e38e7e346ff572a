"""`dry_run=true`: the plan of a run, without training: arithmetic, layers, FLOPs, memory, time and cost.

The schedule is drawn as `<runs_dir>/<run_name>.schedule.png`; nothing else is written. What is timed is the run's own, for
estimate_seconds (src/trial.py); where one step takes longer than that, a micro-batch of noise has to do (src/probe.py).
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from loguru import logger
from rich.table import Table

from src import distributed
from src.build import evaluates_trained
from src.build_model import begin_from_weights, build_live_model
from src.config import Config
from src.config.identity import run_dir, run_name
from src.course import Course, describe_evaluation, draw, rate_rows
from src.first_batch import Ready
from src.forecast import Amounts, Forecast, forecast, saves_of
from src.forecast_rows import as_json, rough_rows, time_rows
from src.machine import available_memory, seconds_since_start
from src.memory import Need, checkpoint_bytes, fixed_bytes, gib, room_of
from src.probe import Probe, layer_table
from src.session import Place, device_name
from src.training.arithmetic import Arithmetic, plan_arithmetic
from src.training.precision import choose_precision
from src.trial import Trial, try_out


class Looked(NamedTuple):
    """What rank 0 found out alone, with a micro-batch of noise.

    Attributes:
        rows: of the plan, on parameters, arithmetic and memory.
        flops: forward FLOPs an image, by image size.
        passes: forwards and backwards a step, on average: more than one with SAM.
        rate: images a second of one rank's forward, backward and update.
        measured: how the rate was.
        need: memory of a rank.
        picture: the drawn schedule.
    """

    rows: dict[str, str]
    flops: dict[int, float]
    passes: float
    rate: float
    measured: str
    need: Need
    picture: Path


def check_and_plan(config: Config, place: Place, ready: Ready) -> str:
    """Print the plan of the run and draw its schedule. The preflight has passed. Every rank must call it.

    Returns:
        what the plan says as one JSON object, for machines.

    Raises:
        ConfigError: if the model does not take the weights or the sizes that it is to be given, or the picture cannot be written.
        DataError: if an image cannot be read.
    """
    started_seconds = seconds_since_start()
    train, val, world = ready.train, ready.val, place.world
    arithmetic = plan_arithmetic(config, num_train=len(train), world_size=world.size)
    course = Course.of(config, arithmetic)
    looked = distributed.from_rank_0(lambda: look(config, place, arithmetic, course, num_classes=len(train.classes)))
    rough = looked.passes * arithmetic.batch_size / (looked.rate * world.size)  # seconds of a step, without loading
    why_not = distributed.from_rank_0(lambda: why_no_trial(config, place, looked.need, arithmetic, rough_step_seconds=rough))
    trial: Trial | None = None
    expected: Forecast | None = None
    if why_not is None:
        logger.info(f"measuring training, evaluation and loading for about {config.estimate_seconds:g} s")
        sizes = sorted({min(course.sizes), max(course.sizes)})
        trial = try_out(config, place, ready, sizes=sizes, seconds=config.estimate_seconds)
        amounts = amounts_of(config, arithmetic, course, num_val=len(val))
        expected = forecast(amounts, trial, flops=looked.flops, started_seconds=started_seconds)
    if trial is not None and expected is not None:
        takes = time_rows(config, arithmetic, trial, expected)
    else:
        seconds = rough * relative_work(config, course, looked.flops) * arithmetic.total_steps
        rate = looked.rate / looked.passes
        takes = rough_rows(config, why_not or "", seconds=seconds, rate=rate, ranks=world.size, measured=looked.measured)
    rows = {
        "run": run_name(config),
        "device": f"{world.size} x {device_name(place.device)}, {choose_precision(config.precision, place.device).name}",
        "images": f"{len(train):,} train, {len(val):,} val, {len(train.classes):,} classes",
        "batch": arithmetic.describe_batch(),
        "steps": f"{arithmetic.total_steps:,} = {config.epochs} epochs x {arithmetic.steps_per_epoch:,}",
        **rate_rows(config, course),
        "drawn in": str(looked.picture),
        "evaluated at": describe_evaluation(config),
        **looked.rows,
        "loading, a rank": ready.first.describe(),
        **takes,
        **target_rows(config, arithmetic),
    }
    if world.leads:
        plan = Table(title="plan of the run", show_header=False, title_justify="left")
        for name, value in rows.items():
            plan.add_row(name, value)
        place.console.print(plan)
        logger.info("dry run: nothing was trained, and nothing written but the picture of the schedule")
    said: dict[str, Any] = {"status": "planned", "run_dir": str(run_dir(config)), "picture": str(looked.picture)}
    said |= {"steps": arithmetic.total_steps, "batch_size": arithmetic.batch_size, "ranks": world.size}
    said |= {"train_images": len(train), "val_images": len(val)}
    said["expected"] = as_json(config, arithmetic, trial, expected) if trial and expected else None
    return json.dumps(said | {"not_measured": why_not})


def look(config: Config, place: Place, arithmetic: Arithmetic, course: Course, *, num_classes: int) -> Looked:
    """Count FLOPs and memory, time a micro-batch of noise, print the layers, and draw the schedule. For rank 0."""
    model = build_live_model(config, choose_precision(config.precision, place.device), place.device, num_classes=num_classes)
    begin_from_weights(config, model)
    probe = Probe(config, place, model, local_batch_size=arithmetic.local_batch_size, num_classes=num_classes)
    image_size = config.data.image_size
    keys = dict.fromkeys(course.sizes, "data.ramp_from_size") | {image_size: "data.image_size"}
    flops = {size: probe.flops_an_image(size, key=key) for size, key in keys.items()}
    evaluation_flops = probe.flops_an_image(config.data.eval_image_size, key="data.eval_image_size")
    need = Need(fixed_bytes(config, num_classes), probe.saved_bytes_an_image())
    rate = probe.images_per_second()
    passes, more = 1.0, ""
    if config.optim.sam_rho is not None:
        every = config.optim.sam_every_steps
        passes = 1 + -(-arithmetic.total_steps // every) / arithmetic.total_steps
        more = f"; {passes:.4g} passes a step, with SAM every {'step' if every == 1 else f'{every} steps'}"
    forwards = 4 if config.model.gradient_checkpointing else 3
    images_an_epoch = arithmetic.steps_per_epoch * arithmetic.batch_size
    total_flops = forwards * passes * images_an_epoch * sum(flops[size] for size in course.sizes)
    rows = {
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        "arithmetic": f"{flops[image_size] / 1e9:.3g} GFLOP an image forward at {image_size} px, two a multiply-add",
        "  evaluation": f"{evaluation_flops / 1e9:.3g} GFLOP an image at {config.data.eval_image_size} px",
        "  in all": f"{total_flops / 1e18:.3g} EFLOP, forward and backward taken for {forwards} forwards{more}",
        "memory a rank": f"about {gib(need.of(arithmetic.local_batch_size))}{room_of(place.device)}",
        "  weights and states": f"{gib(need.fixed)} with gradients and optimizer",
        "  activations": f"{need.an_image / 2**20:.1f} MiB an image",
        "checkpoint": f"{checkpoint_bytes(config, num_classes) / 2**20:.0f} MiB",
    }
    place.console.print(layer_table(model, image_size, place.device))
    picture = draw(config, arithmetic, course)
    return Looked(rows, flops, passes, rate, f"{probe.timed_steps} steps of {probe.num_images}", need, picture)


def why_no_trial(config: Config, place: Place, need: Need, arithmetic: Arithmetic, *, rough_step_seconds: float) -> str | None:
    """Return why the run's own steps are not timed, and what to type so that they are; None where they are. For rank 0."""
    limit = config.estimate_seconds
    if limit == 0:
        return "estimate_seconds=0"
    if rough_step_seconds > limit:
        enough = 10 ** len(f"{rough_step_seconds:.0f}")
        return f"a step takes about {rough_step_seconds:,.0f} s here: estimate_seconds={enough} measures some"
    if place.device.type == "cpu":  # the preflight has looked at a GPU's
        needed, free = need.of(arithmetic.local_batch_size) * place.world.local_size, available_memory()
        if needed > free:
            return f"training takes about {gib(needed)} of memory here, and {gib(free)} are free"
    return None


def relative_work(config: Config, course: Course, flops: dict[int, float]) -> float:
    """Return the mean of the epochs' FLOPs an image, over those at data.image_size."""
    return sum(flops[size] for size in course.sizes) / len(course.sizes) / flops[config.data.image_size]


def amounts_of(config: Config, arithmetic: Arithmetic, course: Course, *, num_val: int) -> Amounts:
    """Count what a run does."""
    steps_at: dict[int, int] = {}
    for size in course.sizes:
        steps_at[size] = steps_at.get(size, 0) + arithmetic.steps_per_epoch
    evaluated = [epoch for epoch in range(1, config.epochs + 1) if epoch % config.eval_every_epochs == 0 or epoch == config.epochs]
    a_epoch = arithmetic.steps_per_epoch
    recalibrate = getattr(config.average, "recalibrate_images", 0)
    return Amounts(
        steps_at=steps_at,
        epochs=config.epochs,
        evaluations=len(evaluated),
        evaluated_images=num_val * (2 if evaluates_trained(config) else 1),
        recalibration_steps=min(recalibrate, a_epoch * arithmetic.batch_size) / arithmetic.batch_size,
        saves=saves_of(
            total_steps=arithmetic.total_steps,
            steps_per_epoch=a_epoch,
            evaluated_epochs=evaluated,
            save_every_steps=config.save_every_steps,
        ),
    )


def target_rows(config: Config, arithmetic: Arithmetic) -> dict[str, str]:
    """Say what rate each of target_hours takes."""
    images = arithmetic.total_steps * arithmetic.batch_size
    return {
        f"target {number}": f"training in {hours:g} h takes {images / (hours * 3600):,.0f} images/s over all ranks"
        for number, hours in enumerate(config.target_hours, start=1)
    }
