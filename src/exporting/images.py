"""Images for other runtimes: a split as evaluation sees it, normalised, on the CPU."""

from collections.abc import Callable, Iterator
from contextlib import closing

import torch
from torch import Tensor

from src.batch import Source
from src.build import loader_threads, stuck_seconds
from src.build_model import build_normalise
from src.build_plans import eval_geometry
from src.config import Config
from src.data.build_engine import build_engine
from src.data.plan import eval_plans
from src.distributed import World
from src.training.precision import choose_precision

_CPU = torch.device("cpu")
_AT_ONCE = 64  # images a forward


def batches_of(
    config: Config, source: Source, world: World, progress: Callable[[int, int], None]
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield every image of a source once, in order, prepared as in evaluation: the reference engine's pixels, normalised.

    Args:
        config: the run's.
        source: a split, or a part of one.
        world: of one process.
        progress: told (images done, images in all).

    Yields:
        images float32 (N, 3, S, S) and labels int64 (N,), on the CPU, the caller's to keep.

    Raises:
        DataError: naming an image that cannot be read.
    """
    normalise = build_normalise(config, choose_precision("fp32", _CPU), _CPU)
    threads, limit = loader_threads(config, world), stuck_seconds(config)
    on_cpu = config.data.model_copy(update={"decoder": "cpu"})
    engine = build_engine(on_cpu, "torchvision", source, device=_CPU, threads=threads, stuck_seconds=limit)
    plans = eval_plans(source.sizes, batch_size=min(config.eval_batch_size, _AT_ONCE), rank=0, world_size=1)
    done = 0
    with closing(engine):
        for batch in engine.batches(plans, geometry=eval_geometry(config)):
            yield normalise(batch.images), batch.labels.clone()
            done += len(batch.labels)
            progress(done, len(source))


def first_of(config: Config, source: Source, world: World, noise: Tensor) -> Tensor:
    """Return as many images as there is noise, the source's first; where it has fewer, noise fills up.

    Args:
        config: the run's.
        source: a split.
        world: of one process.
        noise: float32 (N, 3, S, S).
    """
    found: list[Tensor] = []
    with closing(batches_of(config, source, world, lambda done, total: None)) as batches:  # type: ignore[type-var]
        for images, _ in batches:
            found.append(images)
            if sum(map(len, found)) >= len(noise):
                break
    return torch.cat([*found, noise])[: len(noise)].contiguous()
