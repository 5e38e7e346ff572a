"""What every process of ours does first and last: join the others, settle torch, open the data, leave in order."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from loguru import logger
from rich.console import Console

from src import distributed, peers
from src.agreement import naming_host, require_same_data
from src.batch import DataError, Source, Stuck
from src.config import Config, ConfigError
from src.data.build import build_source, build_sources
from src.data.build_engine import choose_engine
from src.data.nearby import Report, copy_files, copy_images, load, mapped, wants_memory
from src.data.sources.in_memory import Packed
from src.machine import cpus_per_rank, settle_torch
from src.tracking.console import start_console
from src.tracking.progress import counting


class Place(NamedTuple):
    """Where this process stands: its world, its device, its console."""

    world: distributed.World
    device: torch.device
    console: Console


@contextmanager
def joined(config: Config, *, flights: Path | None = None) -> Iterator[Place]:
    """Join the other ranks, with torch's threads settled; leave them at the end.

    Args:
        config: read for how exact torch is to be.
        flights: folder of NCCL's flight recorder; None: torch's own.
    """
    peers.show_crashes()
    if flights is not None:
        peers.record_flights(flights)
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
    """Open train and val: each node's first rank copies, indexes and loads what has to be, the others find it."""
    data = config.data

    def open_both() -> tuple[Source, Source]:
        near = copy_files(data, ("train", "val"), threads=threads, report=report)
        with report("reading image headers") as progress:
            sources = build_sources(near, threads=threads, progress=progress)
        for source in sources:
            copy_images(data, source, threads=threads, report=report)
        return sources

    threads, report = 2 * cpus_per_rank(place.world), reporter(place)
    train, val = distributed.once_per_node(naming_host(open_both, place.world), place.world)
    require_same_data({"train": train, "val": val}, data.name)
    return in_memory(config, place, train), in_memory(config, place, val)


def open_val(config: Config, place: Place) -> Source:
    """Open val alone."""
    data = config.data

    def open_it() -> Source:
        near = copy_files(data, ("val",), threads=threads, report=report)
        with report("reading image headers") as progress:
            source = build_source(near, "val", threads=threads, progress=progress)
        copy_images(data, source, threads=threads, report=report)
        return source

    threads, report = 2 * cpus_per_rank(place.world), reporter(place)
    val = distributed.once_per_node(naming_host(open_it, place.world), place.world)
    require_same_data({"val": val}, data.name)
    return in_memory(config, place, val)


def in_memory(config: Config, place: Place, source: Source) -> Source:
    """Load the images into memory where that is wanted: once a node, and mapped by all of its ranks.

    Raises:
        ConfigError: on every rank, if a node's memory does not suffice.
    """
    if not wants_memory(config.data):
        return source
    world = place.world
    engine = choose_engine(config.data)
    threads = 2 * cpus_per_rank(world)
    packed: list[Packed] = []

    def load_on_first() -> None:
        if world.leads_node:
            packed.append(load(config.data, source, engine=engine, threads=threads, report=reporter(place)))

    distributed.once_per_node(load_on_first, world)
    places = distributed.gather(packed[0].place if packed else None)
    near = mapped(source, places[world.rank - world.local_rank], engine=engine)
    distributed.gather(None)  # all have opened it
    if packed and engine != "ffcv":  # FFCV opens its file by its path again and again
        packed[0].close()
    return near


def reporter(place: Place) -> Report:
    """Return what shows how far a long preparation is."""
    return lambda what: counting(place.console, what)


def device_name(device: torch.device) -> str:
    """Return the GPU's name, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def exit_code_after(error: ConfigError | DataError, place: Place) -> int:
    """Say what ended a door's work: 2 for what was refused before it began, told once; 1 for data, told by the rank that met it."""
    if isinstance(error, ConfigError):
        if place.world.leads:
            print(error, file=sys.stderr, flush=True)
            peers.report(error, known=True)  # once in torchrun's report, too
        if isinstance(error.__cause__, Stuck):
            leave_without_waiting(error.__cause__, place, code=2)
        return 2
    logger.error(f"{error}")
    peers.report(error, known=True)
    leave_without_waiting(error, place)
    return 1


def leave_without_waiting(error: BaseException, place: Place, *, code: int = 1) -> None:
    """End the process where leaving in order could wait for ever: for a disk that does not answer, or for ranks that are gone."""
    if isinstance(error, Stuck) or place.world.size > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
