"""What augmentation costs: RandAugment on a micro-batch beside torchvision's on one image after the other, and shares of a step.

The step is ResNet-18's: forward, backward and SGD in float32, channels last, on as many images of the same size. Everything takes
its turn in every round; medians over rounds, so that a busy machine slows all alike. CPU seconds of all threads are told beside the
wall's: other processes hardly change them.
"""

import operator
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from src.augment.build import build_augmentation
from src.batch import Batch, BatchPlan
from src.build_model import build_normalise
from src.config import Config, load
from src.distributed import World, choose_device
from src.draws import hash_words
from src.machine import cpus_per_rank, settle_torch
from src.step_benchmark import interval_of_median, wait
from src.training.precision import choose_precision

_LOG_WIDTH = 140
WARMUP_ROUNDS = 2
ROWS = {
    "rand_augment": ("augment=rand_augment",),  # two operations of magnitude 9
    "trivial_augment_wide": ("augment=trivial_augment",),
    "rand_augment_timm": ("augment.operations=rand_augment_timm", "augment.magnitude=7", "augment.magnitude_std=0.5"),
    "jitter": ("augment.brightness=0.4", "augment.contrast=0.4", "augment.saturation=0.4", "augment.hue=0.1"),
    "erasing": ("augment.erase_probability=0.25",),
    "mixup": ("augment.mixup_alpha=0.2",),
    "cutmix": ("augment.cutmix_alpha=1.0",),
}
PLAIN, THEIRS, STEP = "plain", "torchvision", "step"
Contender = Callable[[int], object]  # of the round
Times = dict[str, list[float]]  # of each contender, microseconds an image, one a round


def measure_augment(*, pairs: int, images: int, size: int) -> dict[str, Any]:
    """Measure every row and return the figures; a table goes to stderr."""
    world = World(0, 0, 1, 1, under_torchrun=False)
    threads = cpus_per_rank(world)
    settle_torch(threads=threads, deterministic=False)
    device = choose_device(world)
    contenders = _contenders(device, images, size)
    times: Times = {name: [] for name in contenders}
    cpu_times: Times = {name: [] for name in contenders}
    for number in range(pairs + WARMUP_ROUNDS):
        names = list(contenders)
        for name in names if number % 2 else reversed(names):
            wait(device)
            start, cpu_start = time.perf_counter(), time.process_time()
            contenders[name](number)
            wait(device)
            if number >= WARMUP_ROUNDS:
                times[name].append((time.perf_counter() - start) / images * 1e6)
                cpu_times[name].append((time.process_time() - cpu_start) / images * 1e6)
    result = {
        **{"benchmark": "augment", "pairs": pairs, "images": images, "size": size, "device": device.type, "threads": threads},
        **{"torch": torch.__version__, "rows": _rows(times), **_summary(times), "cpu_time": _summary(cpu_times)},
    }
    console = Console(stderr=True)
    # A log has no width: lines there are as long as the table needs.
    _print_table(console if console.is_terminal else Console(stderr=True, highlight=False, width=_LOG_WIDTH), result)
    return result


def _rows(times: Times) -> dict[str, Any]:
    """Return what each kind costs beyond normalising."""
    rows = {}
    for name in ROWS:
        costs = _paired(times[name], times[PLAIN], operator.sub)
        shares = [100 * share for share in _paired(costs, times[STEP], operator.truediv)]
        rows[name] = {
            **{"cost_us": statistics.median(costs), "cost_us_interval": interval_of_median(costs)},
            **{"percent_of_step": statistics.median(shares), "percent_of_step_interval": interval_of_median(shares)},
        }
    return rows


def _summary(times: Times) -> dict[str, Any]:
    """Return RandAugment beside torchvision's, and the medians of what all is measured against."""
    ratios = _paired(_paired(times["rand_augment"], times[PLAIN], operator.sub), times[THEIRS], operator.truediv)
    return {
        "rand_augment_to_torchvision": statistics.median(ratios),
        "rand_augment_to_torchvision_interval": interval_of_median(ratios),
        **{f"{name}_us": statistics.median(times[name]) for name in (PLAIN, THEIRS, STEP)},
    }


def _paired(first: list[float], second: list[float], how: Callable[[float, float], float]) -> list[float]:
    return [how(one, other) for one, other in zip(first, second, strict=True)]


def _contenders(device: torch.device, images: int, size: int) -> dict[str, Contender]:
    """Build what is measured: functions of the round, which choose other operations in each."""
    from torchvision.transforms.v2 import InterpolationMode, RandAugment

    coarse = torch.rand((images, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    pixels = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp_(0, 1).mul_(255).to(torch.uint8)
    channels_last = pixels.to(device, memory_format=torch.channels_last)  # as engines hand them out
    one_by_one = [image.to(device) for image in pixels]  # as torchvision has them: contiguous
    labels = (torch.arange(images) % 1000).to(device)

    def ours(*overrides: str) -> Contender:
        config = load(["data=synthetic", *overrides])
        augment = build_augmentation(
            config.augment, normalise=_normalise(config, device), seed=config.seed, num_classes=1000, device=device
        )

        def run(number: int) -> object:
            keys = hash_words(number, np.arange(images))
            plan = BatchPlan(np.arange(images), keys, np.zeros((images, 4), np.int32), np.zeros(images, np.bool_))
            return augment(Batch(channels_last, labels, plan), step=number, slot=0)

        return run

    theirs = RandAugment(interpolation=InterpolationMode.BILINEAR)

    def one_after_the_other(number: int) -> object:
        torch.manual_seed(number)
        return [theirs(image) for image in one_by_one]

    return {
        PLAIN: ours("augment=standard"),
        THEIRS: one_after_the_other,
        **{name: ours(*overrides) for name, overrides in ROWS.items()},
        STEP: _resnet18_step(device, labels, size),
    }


def _normalise(config: Config, device: torch.device) -> Any:
    return build_normalise(config, choose_precision("fp32", device), device)


def _resnet18_step(device: torch.device, labels: Tensor, size: int) -> Contender:
    from torchvision.models import resnet18

    model = resnet18().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    batch = torch.randn(len(labels), 3, size, size, device=device).contiguous(memory_format=torch.channels_last)

    def run(number: int) -> None:
        torch.nn.functional.cross_entropy(model(batch), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def _print_table(console: Console, result: dict[str, Any]) -> None:
    """Print a row for each kind, and the ratio."""
    images = f"{result['images']} images of {result['size']} px"
    title = f"{images}, {result['device']}, {result['threads']} threads, {result['pairs']} rounds"
    table = Table(title=title, title_justify="left")
    table.add_column("what", no_wrap=True)
    for column in ("us an image", "95 %", "% of a step", "95 %"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, row in result["rows"].items():
        cost, share = row["cost_us_interval"], row["percent_of_step_interval"]
        costs = f"{row['cost_us']:.0f}", f"{cost[0]:.0f} - {cost[1]:.0f}"
        table.add_row(name, *costs, f"{row['percent_of_step']:.2f}", f"{share[0]:.2f} - {share[1]:.2f}")
    console.print(table)
    low, high = result["rand_augment_to_torchvision_interval"]
    console.print(
        f"rand_augment: {result['rand_augment_to_torchvision']:.2f} ({low:.2f} - {high:.2f}) of torchvision's "
        f"{result['torchvision_us']:.0f} us an image; by CPU time {result['cpu_time']['rand_augment_to_torchvision']:.2f}; "
        f"a ResNet-18 step takes {result['step_us']:.0f} us an image",
        soft_wrap=True,
    )
