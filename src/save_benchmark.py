"""What saving costs training: how long the loop stands still for a checkpoint, and how much slower steps are while it is written.

ResNet-50 with 1,000 classes, SGD with momentum and an exponential average, on noise. The images are small, so that steps are short
beside a write and an epoch is short beside its saves: with larger ones, the share of an epoch is smaller than what is told here.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from src.batch import Batch, BatchPlan
from src.build import Engines, build_run
from src.config import Config, load
from src.data.sources.synthetic import SyntheticSource
from src.distributed import World, choose_device
from src.machine import cpus_per_rank, settle_torch
from src.step_benchmark import Replay, wait
from src.train_run import checkpoint_writer
from src.training.checkpoint import LAST, Checkpoints
from src.training.loop import train_step
from src.training.run import Run
from src.training.stopping import StopRequests

_CLASSES, _IMAGENET_IMAGES = 1000, 1_281_167
_QUIET_STEPS = 5  # before each save, with nothing being written
_STEPS = 10_000  # more than will be trained
_ALONE = World(0, 0, 1, 1, under_torchrun=False)


class TimedCheckpoints(Checkpoints):
    """Checkpoints that note when each write begins and ends."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.began, self.ended = 0.0, 0.0

    def save(self, *arguments: Any) -> bool:
        """Save."""
        self.began = time.perf_counter()
        try:
            return super().save(*arguments)
        finally:
            self.ended = time.perf_counter()


def measure_save(*, saves: int, batch: int, size: int) -> dict[str, Any]:
    """Save so many times during training and return the figures; progress goes to stderr."""
    settle_torch(threads=cpus_per_rank(_ALONE), deterministic=False)
    config = load(
        [
            *("data=synthetic", f"data.num_classes={_CLASSES}", f"data.image_size={size}", f"data.resize_size={size}"),
            *("model=resnet50", "optim=sgd", "average=ema", f"batch_size={batch}", f"data.num_train={batch * _STEPS}"),
            *(f"save_every_steps={_STEPS}", "epochs=2", "schedule.warmup_epochs=1"),
        ]
    )
    runs = Path(config.runs_dir).expanduser()
    runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=runs, prefix="save-benchmark-") as folder:
        figures = measure(config, Path(folder), saves=saves)
    images_a_second = batch / figures["step_seconds"]
    usual = load(["data=synthetic"])  # for the usual batch and interval
    epoch_steps = _IMAGENET_IMAGES // usual.batch_size
    an_epoch = epoch_steps // usual.save_every_steps + 2  # and before and after the evaluation
    share = an_epoch * figures["stand_still_seconds"]["median"] / (_IMAGENET_IMAGES / images_a_second)
    slower = figures["steps_beside_a_write"]
    Console(stderr=True).print(
        f"training stands still for {figures['stand_still_seconds']['median']:.3f} s a save; the write takes "
        f"{figures['write_seconds']['median']:.2f} s beside it, in which steps take {slower:.2f} times as long"
    )
    return {
        **{"benchmark": "save", "saves": saves, "batch": batch, "image_size": size, "torch": torch.__version__},
        **figures,
        "share_of_an_epoch": share,
        "assumes": f"an epoch of {epoch_steps:,} steps of {usual.batch_size} images at the measured {images_a_second:.0f} images "
        f"a second, save_every_steps={usual.save_every_steps}: {an_epoch} saves",
    }


def measure(config: Config, folder: Path, *, saves: int) -> dict[str, Any]:
    """Train, save, and train on while it is written, again and again. The first save is not counted: it allocates."""
    device = choose_device(_ALONE)
    source = SyntheticSource(
        count=config.batch_size * _STEPS, num_classes=_CLASSES, stored_size=config.data.image_size, split="train"
    )
    engine = Replay([noise(device, config.batch_size, config.data.image_size)])
    checkpoints = TimedCheckpoints(folder)
    checkpoints.prepare()
    still, writes, quiet, beside, extra = [], [], [], [], []
    with ThreadPoolExecutor(1, "checkpoint") as writer:
        run = build_run(
            config,
            _ALONE,
            device,
            train=source,
            val=source,
            engines=Engines(engine, engine),
            trackers=[],
            requests=StopRequests(folder / "STOP"),
            write_checkpoint=checkpoint_writer(config, checkpoints, writer, records=[], classes=("noise",), leads=True),
        )
        batches = run.epoch_batches()
        for number in range(saves + 1):
            before = [timed_step(run, batches) for _ in range(_QUIET_STEPS)]
            start = time.perf_counter()
            run.save()
            stood_still = time.perf_counter() - start
            during = steps_until(run, batches, checkpoints, start)
            if number > 0:
                still.append(stood_still)
                writes.append(checkpoints.ended - checkpoints.began)
                quiet += before
                beside += during
                extra.append(sum(during) - len(during) * statistics.median(before))
    mib = (folder / LAST).stat().st_size / 2**20
    step = statistics.median(quiet)
    return {
        "device": device.type,
        "checkpoint_mib": round(mib, 1),
        "stand_still_seconds": spread(still),
        "write_seconds": spread(writes),
        "write_mib_a_second": mib / statistics.median(writes),
        "step_seconds": step,
        "steps_beside_a_write": statistics.mean(beside) / step,
        "more_seconds_in_steps_a_save": spread(extra),
    }


def steps_until(run: Run, batches: Iterator[Batch], checkpoints: TimedCheckpoints, start: float) -> list[float]:
    """Train until the write that began after `start` is over. Returns the seconds of each step that began before its end."""
    seconds = []
    while checkpoints.ended < start:
        seconds.append(timed_step(run, batches))
    return seconds


def timed_step(run: Run, batches: Iterator[Batch]) -> float:
    """Train one step as the loop does, and wait for the device. Returns the seconds."""
    start = time.perf_counter()
    train_step(run, batches)
    run.step += 1
    run.after_step(stopping=False)
    wait(run.device)
    return time.perf_counter() - start


def noise(device: torch.device, batch: int, size: int) -> Batch:
    """Make a batch of noise on the device."""
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    plan = BatchPlan(np.arange(batch), np.zeros(batch, np.uint64), np.zeros((batch, 4), np.int32), np.zeros(batch, np.bool_))
    return Batch(pixels.to(device), torch.randint(0, _CLASSES, (batch,)).to(device), plan)


def spread(values: list[float]) -> dict[str, float]:
    """Return the median and the range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}
