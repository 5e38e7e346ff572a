"""What every process of ours does first and last: join the others, settle torch, open the data, leave in order."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from rich.console import Console

from src import distributed
from src.batch import Source
from src.config import Config
from src.data.build import build_source, build_sources
from src.machine import cpus_per_rank, settle_torch
from src.tracking.console import counting, start_console


class Place(NamedTuple):
    """Where this process stands: its world, its device, its console."""

    world: distributed.World
    device: torch.device
    console: Console


@contextmanager
def joined(config: Config) -> Iterator[Place]:
    """Join the other ranks, with torch's threads settled; leave them at the end."""
    world = distributed.world_from_environment()
    console = start_console(speaks=world.leads)
    settle_torch(threads=cpus_per_rank(world), deterministic=config.deterministic)
    device = distributed.choose_device(world)
    distributed.start(world, device)
    try:
        yield Place(world, device, console)
    finally:
        distributed.stop()


def open_sources(config: Config, place: Place) -> tuple[Source, Source]:
    """Open train and val: each node's first rank builds the indexes, the others find them."""

    def open_both() -> tuple[Source, Source]:
        with counting(place.console, "reading image headers") as progress:
            return build_sources(config.data, threads=2 * cpus_per_rank(place.world), progress=progress)

    return distributed.once_per_node(open_both, place.world)


def open_val(config: Config, place: Place) -> Source:
    """Open val alone."""

    def open_it() -> Source:
        with counting(place.console, "reading image headers") as progress:
            return build_source(config.data, "val", threads=2 * cpus_per_rank(place.world), progress=progress)

    return distributed.once_per_node(open_it, place.world)


def device_name(device: torch.device) -> str:
    """Return the GPU's name, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
