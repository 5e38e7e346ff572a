"""A training from its configuration to its result: hold the run's folder, resume, fit, report."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple, ParamSpec

import torch
from loguru import logger

from src import distributed, peers
from src.batch import Tracker
from src.build import build_run
from src.config import Config, ConfigError
from src.config.identity import model_name, run_dir
from src.first_batch import Ready
from src.memory import explained
from src.resume_run import is_kept, resume
from src.session import Place, device_name
from src.tracking.build import more_trackers
from src.tracking.console import ConsoleTracker, also_log_to
from src.tracking.gauges import Gauges, build_gauges
from src.tracking.jsonl import JsonlTracker, cut_back, elapsed_seconds
from src.tracking.ledger_file import NAME as LEDGER
from src.tracking.ledger_file import LedgerFile, open_ledger
from src.tracking.run_folder import RunFolder
from src.training.checkpoint import Checkpoints
from src.training.evaluation import EvalResult
from src.training.ledger import Ledger
from src.training.loop import fit
from src.training.profiling import profiling
from src.training.resume import capture
from src.training.run import Run
from src.training.stopping import Preempted, StopRequests

P = ParamSpec("P")
FLIGHTS = "flight_recorder"  # folder in the run's


class Outcome(NamedTuple):
    """How a training ended."""

    status: str
    run_dir: Path
    result: EvalResult | None
    epoch: int
    images_per_second: float
    interrupted: bool

    def as_json(self) -> str:
        """Return stdout's last line."""
        result = self.result
        return json.dumps(
            {
                "status": self.status,
                "run_dir": str(self.run_dir),
                "val_acc1": result.acc1 if result else None,
                "val_acc5": result.acc5 if result else None,
                "val_loss": result.loss if result else None,
                "epoch": self.epoch,
                "images_per_second": round(self.images_per_second, 1),
            }
        )


def train(config: Config, place: Place, ready: Ready, requests: StopRequests) -> Outcome:
    """Train or go on, in the run's folder, to the end or until asked to stop.

    Raises:
        ConfigError: if the folder, or the checkpoint to resume from, does not fit the configuration.
    """
    world, device = place.world, place.device
    path = run_dir(config)
    folder = hold_folder(path, config, world)
    peers.make_flights_folder(path / FLIGHTS, device)
    checkpoints = Checkpoints(path / "checkpoints")
    jsonl: list[JsonlTracker] = []
    ledgers: list[LedgerFile] = []
    classes = ready.train.classes
    trackers: list[Tracker] = []
    patience = peers.Patience(config.timeout_seconds)
    try:
        with (
            requests.listening(),
            profiling(config.profile_steps, path / "profile") as profile,
            ThreadPoolExecutor(1, "checkpoint") as writer,  # however this ends, what is being written is waited for
        ):
            run = build_run(
                config,
                world,
                device,
                train=ready.train,
                val=ready.val,
                engines=ready.engines,
                trackers=trackers,
                requests=requests,
                write_checkpoint=checkpoint_writer(
                    config, checkpoints, writer, records=(jsonl, ledgers), classes=classes, leads=world.leads
                ),
                after_each_step=in_turn(profile.after_step, patience.after_step),
            )
            if world.leads:
                checkpoints.prepare()
            resume(run, config, checkpoints, classes)
            if folder is not None:
                requests.forget_old()
                folder.describe(device=device_name(device), world_size=world.size)
                also_log_to(path / "train.log")
                rows = cut_back(folder.metrics_file, lambda row: is_kept(row, run))
                run.clock.resume_from(elapsed_seconds(rows))
                jsonl.append(JsonlTracker(folder.metrics_file))
                ledgers += [file for file in [open_ledger(path / LEDGER, step=run.step)] if file is not None]
                trackers += [
                    *jsonl,
                    ConsoleTracker(place.console, total_steps=run.total_steps, first_step=run.step, progress=config.track.progress),
                    *more_trackers(config, path),
                ]
                run.gauges = gauges_of(run, config, place)
                say_header(config, run, path, place, ready)
                folder.set_status("running")
            run.meter.ledger = Ledger(run.arithmetic, ready.train.labels, device, keep=in_turn(*(file.keep for file in ledgers)))
            profile.watch(run)
            outcome = fit_and_report(run, requests, path, folder)
            run.close()
            return outcome
    except ConfigError:
        raise  # refused before it began: the status of an earlier process stands
    except Exception as error:
        if folder is not None:
            folder.set_status("failed", error=str(explained(peers.plainly(error), config, place)))
        raise
    finally:
        for tracker in trackers:
            tracker.close()
        for file in ledgers:
            file.close()
        if folder is not None:
            folder.close()


def checkpoint_writer(
    config: Config,
    checkpoints: Checkpoints,
    writer: Executor,
    *,
    records: Sequence[Sequence[JsonlTracker | LedgerFile]],
    classes: tuple[str, ...],
    leads: bool,
) -> Callable[[Run], Callable[[], bool]]:
    """Return what copies a run's state and lets it be written by another thread, on the rank that leads.

    The writer has one thread. The rows of `records` are on disk before a state that will not write them again.
    """
    stored_config, model = config.model_dump(mode="json"), model_name(config)

    def write_checkpoint(run: Run) -> Callable[[], bool]:
        state = capture(run, config=stored_config, classes=classes)
        kept, best = run.history.top(config.keep_top_k, model), run.history.top(1, model)

        def write() -> bool:
            for record in chain(*records):
                record.sync()
            return checkpoints.save(state, kept, best[0] if best else None)

        return writer.submit(write).result if leads else lambda: True

    return write_checkpoint


def gauges_of(run: Run, config: Config, place: Place) -> Gauges:
    """Return what rank 0 measures of the machine at each log."""
    sam = config.optim.sam_rho is not None
    return build_gauges(
        model=run.model,
        device=place.device,
        precision=run.precision.name,
        world_size=place.world.size,
        gradient_checkpointing=config.model.gradient_checkpointing,
        sam_every_steps=config.optim.sam_every_steps if sam else None,
        image_sizes=(run.image_size_at(epoch) for epoch in range(config.epochs)),
        image_size=lambda: run.image_size_at((run.step - 1) // run.arithmetic.steps_per_epoch),
    )


def fit_and_report(run: Run, requests: StopRequests, path: Path, folder: RunFolder | None) -> Outcome:
    """Run the loop, and turn how it ended into an outcome and a status."""
    status, result = "finished", None
    try:
        result = fit(run)
    except Preempted:
        status = "preempted"
        logger.warning(f"asked to stop: saved at step {run.step}. The same command goes on from there.")
    images = run.step * run.arithmetic.batch_size
    rate = images / run.clock.elapsed if run.clock.elapsed else 0.0
    last_epoch = max(0, (run.step - 1) // run.arithmetic.steps_per_epoch)
    if folder is not None:
        told = run.history.last_result()
        protocol = {} if told is None else {"protocol": told.protocol}  # for src.report, which opens no checkpoint
        folder.set_status("finished" if status == "finished" else "preempted", step=run.step, **protocol)
        requests.obeyed()
    return Outcome(status, path, result or run.history.last_result(), last_epoch, rate, requests.interrupted)


def in_turn(*calls: Callable[P, object]) -> Callable[P, None]:
    """Return one call that makes them all."""

    def call_all(*values: P.args, **named: P.kwargs) -> None:
        for call in calls:
            call(*values, **named)

    return call_all


def hold_folder(path: Path, config: Config, world: distributed.World) -> RunFolder | None:
    """Take the run's folder on rank 0; what is wrong with it is raised on every rank."""
    held: list[RunFolder] = []
    distributed.from_rank_0(lambda: held.append(RunFolder(path, config)))
    return held[0] if world.leads else None


def describe_rate(config: Config) -> str:
    """Return the peak rate, and where it comes from if it is scaled."""
    optim = config.optim
    scaled = f" ({optim.peak_lr:g} for {optim.reference_batch_size:,} images, scaled: {optim.lr_scaling})"
    return f"peak rate {optim.lr_for(config.batch_size):.6g}{scaled if optim.lr_scaling != 'none' else ''}"


def say_header(config: Config, run: Run, path: Path, place: Place, ready: Ready) -> None:
    """Say the run's arithmetic."""
    a, train, val = run.arithmetic, ready.train, ready.val
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    lines = {
        "run": path,
        "data": f"{config.data.name}: {len(train):,} train, {len(val):,} val, {len(train.classes):,} classes, {run.pixels.engine}",
        "model": f"{model_name(config)}, {parameters:,} parameters, {run.precision.name}{', compiled' if config.compile else ''}",
        "batch": a.describe_batch(),
        "steps": f"{a.total_steps:,} = {config.epochs} epochs x {a.steps_per_epoch:,}",
        "optimizer": f"{config.optim.name}, {describe_rate(config)}, {config.schedule.name}",
        "machine": f"{device_name(place.device)}, {torch.get_num_threads()} threads a rank",
        "loading": ready.first.describe(),
    }
    for name, text in lines.items():
        logger.info(f"{name:<10}{text}")
