"""One contender of the loader benchmark, in a process of its own: it is told what to do on stdin and answers on stdout, in JSON.

Our engines are built here as training builds them. Whatever else is printed goes to stderr.
"""

import json
import os
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.batch import BoxResize, Engine, Source
from src.config import ConfigError
from src.data.plan import CropLaw, EpochPlan
from src.loader_benchmark.catalogue import CATALOGUE, Task
from src.machine import settle_torch

LAW = CropLaw((0.08, 1.0), (3 / 4, 4 / 3), 0.5)
PREFETCH = 3
_IMPORTED = time.perf_counter()  # torch is there: from here on a contender pays for itself
_MOST_EQUAL = 0.05


class Contender(Protocol):
    """Shows the images again and again, each epoch in another order, with other boxes and flips."""

    def epoch(self) -> Iterator[Tensor]:
        """Yield task.batches batches (N, 3, S, S) on the CPU, each valid until the next is asked for."""

    def close(self) -> None:
        """End its threads and processes."""


class Ours:
    """An engine of ours on a source of ours."""

    def __init__(self, task: Task) -> None:
        settle_torch(threads=task.workers, deterministic=False)
        engine, source = task.name.split("/")
        self._task, self._epoch = task, 0
        self._source = open_source(source, task)
        self._engine = open_engine(engine, self._source, task)

    def epoch(self) -> Iterator[Tensor]:
        """Yield the images of planned batches."""
        task, count = self._task, len(self._source)
        sizes = np.tile(self._source.sizes, (task.repeats, 1))
        plan = EpochPlan(sizes, seed=0, epoch=self._epoch, batch_size=task.batch, local_batch_size=task.batch, law=LAW)
        self._epoch += 1
        planned = (plan.batch(step, 0) for step in range(task.batches))
        plans = (one._replace(ids=one.ids % count) for one in planned) if task.repeats > 1 else planned
        for batch in self._engine.batches(plans, geometry=BoxResize(task.image_size, "bilinear")):
            yield batch.images

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


def open_source(name: str, task: Task) -> Source:
    """Open what was prepared."""

    def everything(labels: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.arange(len(labels), dtype=np.int64)

    common: dict[str, Any] = {
        "choose": everything,
        "cache_dir": Path(task.scratch),
        "threads": task.workers,
        "progress": lambda done, total: None,
    }
    match name:
        case "folder":
            from src.data.sources.folder import FolderSource

            return FolderSource(task.data, **common)
        case "tar":
            from src.data.sources.tar import TarSource

            return TarSource([task.data], **common)
        case "parquet":
            from src.data.sources.parquet import ParquetSource

            return ParquetSource([task.data], **common)
        case _:
            from src.data.sources.beton import BetonSource

            return BetonSource(task.data, choose=everything)


def open_engine(name: str, source: Any, task: Task) -> Engine:
    """Build an engine as training does on a CPU."""
    common: dict[str, Any] = {"device": torch.device("cpu"), "threads": task.workers, "prefetch": PREFETCH}
    match name:
        case "torchvision":
            from src.data.engines.torchvision import TorchvisionEngine

            return TorchvisionEngine(source, **common)
        case "nvimgcodec":
            from src.data.engines.nvimgcodec import NvImageCodecEngine

            return NvImageCodecEngine(source, **common)
        case "dali":
            from src.data.engines.dali import DaliEngine

            return DaliEngine(source, **common)
        case _:
            from src.data.engines.ffcv import FfcvEngine

            return FfcvEngine(source, **common)


def build_contender(task: Task) -> Contender:
    """Build any contender by its name."""
    if CATALOGUE[task.name].ours:
        return Ours(task)
    from src.loader_benchmark.peers import build_peer

    return build_peer(task)


def run_pass(contender: Contender, task: Task, seconds: float) -> dict[str, float]:
    """Run whole epochs until their clocks have run for `seconds` together. See Task.clock.

    Returns:
        seconds and images within the clock, and how many were shown in all.
    """
    first, last = task.clock
    clocked, epochs = 0.0, 0
    while epochs == 0 or clocked < seconds:
        arrivals = [time.perf_counter() for _ in contender.epoch()]
        if len(arrivals) != task.batches:
            raise ValueError(f"{len(arrivals)} batches an epoch instead of {task.batches}")
        clocked += arrivals[last] - arrivals[first]
        epochs += 1
    return {"seconds": clocked, "images": epochs * (last - first) * task.batch, "shown": epochs * task.batches * task.batch}


def check(contender: Contender, task: Task) -> dict[str, str]:
    """Look at two epochs: nobody is measured for doing nothing, or the same again.

    Raises:
        ValueError: a batch is not what was asked for, images within an epoch are the same, or those of two epochs are.
    """
    shown: list[set[int]] = []
    kind = ""
    for _ in range(2):
        seen: set[int] = set()
        for images in contender.epoch():
            expected = (task.batch, 3, task.image_size, task.image_size)
            if tuple(images.shape) != expected:
                raise ValueError(f"a batch of shape {tuple(images.shape)} instead of {expected}")
            kind = str(images.dtype).removeprefix("torch.")
            # Channels last is copied into rows of channels first; an image is told from another by its checksum.
            seen |= {zlib.crc32(image.data) for image in np.ascontiguousarray(images.numpy())}
        shown.append(seen)
    total = task.batches * task.batch
    if min(map(len, shown)) < (1 - _MOST_EQUAL) * total:
        raise ValueError(f"only {min(map(len, shown))} of {total} images of an epoch differ from each other")
    if len(shown[0] & shown[1]) > _MOST_EQUAL * total:
        raise ValueError(f"{len(shown[0] & shown[1])} of {total} images are the same in two epochs: boxes are not random")
    return {"dtype": kind}


def main(arguments: list[str]) -> int:
    """Answer commands until stdin ends: start, finish, pass, check."""
    task = Task(**json.loads(arguments[0]))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(reply: object) -> None:
        answers.write(json.dumps(reply) + "\n")
        answers.flush()

    contender: Contender | None = None
    begun: Iterator[Tensor] = iter(())
    try:
        for line in sys.stdin:
            command = json.loads(line)
            match command["do"]:
                case "start":
                    contender = build_contender(task)
                    begun = contender.epoch()
                    next(begun)
                    answer({"first_batch_seconds": time.perf_counter() - _IMPORTED})
                case "finish":  # the epoch that was started
                    answer({"batches": 1 + sum(1 for _ in begun)})
                case "pass":
                    assert contender is not None
                    answer(run_pass(contender, task, command["seconds"]))
                case _:
                    assert contender is not None
                    answer(check(contender, task))
    except (ImportError, ConfigError) as error:
        answer({"absent": " ".join(str(error).split())})
        raise
    except Exception as error:
        answer({"failed": f"{type(error).__name__}: {' '.join(str(error).split())}"})
        raise
    if contender is not None:
        contender.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
