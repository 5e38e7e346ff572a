"""What the loop costs beside a bare one: same model, mathematics, batches and type, alternating in one process.

The bare loop normalises, runs forward and backward, updates, and does nothing else. Ours adds the schedule, seeds, metrics, clocks,
signals, and what a log every 50 steps costs.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from src.augment.normalise import Normalise
from src.batch import Batch, BatchPlan, Geometry, Pixels
from src.build import Engines, build_run
from src.build_model import build_live_model, build_normalise
from src.config import Config, load
from src.data.sources.synthetic import SyntheticSource
from src.distributed import World, choose_device
from src.machine import cpus_per_rank, settle_torch
from src.optim.build import build_optimizer
from src.training.loop import train_epoch
from src.training.precision import choose_precision
from src.training.run import Run
from src.training.stopping import StopRequests

_WARMUP_PAIRS = 3
_BATCH, _BATCHES = 64, 4


class Replay:
    """An engine that hands out the same few batches again and again."""

    pixels = Pixels("replay", exact=True)

    def __init__(self, batches: list[Batch]) -> None:
        self._batches = batches

    def batches(self, plans: Iterator[BatchPlan], *, geometry: Geometry) -> Iterator[Batch]:
        """Yield a ready batch for each plan."""
        for number, _ in enumerate(plans):
            yield self._batches[number % len(self._batches)]

    def close(self) -> None:
        """Do nothing."""


class ComputeFree(nn.Module):
    """Nothing but ten numbers: what is left is the loop."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(1, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, K)."""
        logits: Tensor = self.fc(images[:, 0, :1, 0])
        return logits


def compute_free(*, num_classes: int) -> nn.Module:
    """Build the compute-free model (a factory for model=custom)."""
    return ComputeFree(num_classes)


def measure_step(*, pairs: int, steps: int) -> dict[str, Any]:
    """Measure both models and return the figures; progress goes to stderr."""
    world = World(0, 0, 1, 1, under_torchrun=False)
    settle_torch(threads=cpus_per_rank(world), deterministic=False)
    console = Console(stderr=True)
    results: dict[str, Any] = {"benchmark": "step", "pairs": pairs, "steps_a_pair": steps, "torch": torch.__version__}
    for name, model in (
        ("compute_free", ["model=custom", "model.factory=src.step_benchmark:compute_free"]),
        ("small", ["model=small_resnet"]),
    ):
        overrides = [
            *("data=synthetic", "data.image_size=28", "data.resize_size=28", f"batch_size={_BATCH}", *model),
            *(
                f"data.num_train={_BATCH * steps}",
                f"epochs={pairs + _WARMUP_PAIRS}",
                "schedule.warmup_epochs=1",
                "track.log_every_steps=50",
            ),
        ]
        figures = measure_pairs(load(overrides), world, pairs=pairs, steps=steps)
        results[name] = figures
        low, high = figures["overhead_us_interval"]
        console.print(f"{name}: ours {figures['ours_us']:.0f} us a step, bare {figures['bare_us']:.0f} us, n = {pairs}")
        console.print(f"  overhead {figures['overhead_us']:.0f} us ({low:.0f} to {high:.0f}), speed ratio {figures['ratio']:.3f}")
    return results


def measure_pairs(config: Config, world: World, *, pairs: int, steps: int) -> dict[str, Any]:
    """Alternate ours and bare, the order turning with each pair."""
    device = choose_device(world)
    batches = ready_batches(device)
    source = SyntheticSource(count=_BATCH * steps, num_classes=10, stored_size=28, split="train")
    with tempfile.TemporaryDirectory() as folder:
        run = build_run(
            config,
            world,
            device,
            train=source,
            val=source,
            engines=Engines(Replay(batches), Replay(batches)),
            trackers=[],
            requests=StopRequests(Path(folder) / "STOP"),
        )
        bare = BareLoop(config, device, batches)
        ours_times, bare_times = [], []
        for pair in range(pairs + _WARMUP_PAIRS):
            timed = {}
            for who in ("ours", "bare") if pair % 2 else ("bare", "ours"):
                start = time.perf_counter()
                if who == "ours":
                    train_one_epoch(run)
                else:
                    bare.train(steps)
                wait(device)
                timed[who] = (time.perf_counter() - start) / steps * 1e6
            if pair >= _WARMUP_PAIRS:
                ours_times.append(timed["ours"])
                bare_times.append(timed["bare"])
    overheads = [ours - plain for ours, plain in zip(ours_times, bare_times, strict=True)]
    ratios = [plain / ours for ours, plain in zip(ours_times, bare_times, strict=True)]
    return {
        "ours_us": statistics.median(ours_times),
        "bare_us": statistics.median(bare_times),
        "overhead_us": statistics.median(overheads),
        "overhead_us_interval": interval_of_median(overheads),
        "ratio": statistics.median(ratios),
        "ratio_interval": interval_of_median(ratios),
    }


def train_one_epoch(run: Run) -> None:
    """Train `steps` steps as fit does."""
    with run.clock.running():
        train_epoch(run)
    run.meter.epoch()


class BareLoop:
    """The loop that one would write by hand, without anything around it."""

    def __init__(self, config: Config, device: torch.device, batches: list[Batch]) -> None:
        precision = choose_precision(config.precision, device)
        self._batches = batches
        self._precision = precision
        self._model = build_live_model(config, precision, device, num_classes=10)
        self._optimizer = build_optimizer(config.optim, self._model)
        self._normalise: Normalise = build_normalise(config, precision, device)
        self._criterion = nn.CrossEntropyLoss()

    def train(self, steps: int) -> None:
        """Train."""
        for step in range(steps):
            batch = self._batches[step % len(self._batches)]
            with self._precision.autocast():
                loss = self._criterion(self._model(self._normalise(batch.images)), batch.labels)
            loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)


def ready_batches(device: torch.device) -> list[Batch]:
    """Make a few batches of noise on the device."""
    torch.manual_seed(0)
    plan = BatchPlan(np.arange(_BATCH), np.zeros(_BATCH, np.uint64), np.zeros((_BATCH, 4), np.int32), np.zeros(_BATCH, np.bool_))
    batches = []
    for _ in range(_BATCHES):
        pixels = torch.randint(0, 256, (_BATCH, 28, 28, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        batches.append(Batch(pixels.to(device), torch.randint(0, 10, (_BATCH,)).to(device), plan))
    return batches


def interval_of_median(values: list[float]) -> tuple[float, float]:
    """Return the distribution-free 95 % interval of the median: order statistics by the normal approximation of the binomial."""
    ordered, count = sorted(values), len(values)
    reach = round(1.96 * count**0.5 / 2)
    middle = count // 2
    return ordered[max(0, middle - reach)], ordered[min(count - 1, middle + reach)]


def wait(device: torch.device) -> None:
    """Wait until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
