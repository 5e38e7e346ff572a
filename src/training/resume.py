"""A run's state as tensors and plain containers, and back. What is captured and restored goes on bit for bit.

At another world size the global order goes on exactly; BatchNorm then starts from the ranks' mean statistics.
"""

from typing import Any

import torch
from torch import Tensor

from src.distributed import gather
from src.training.batch_norm import load_buffers, mean_of_buffers, own_buffers
from src.training.checkpoint import SCHEMA
from src.training.history import History
from src.training.run import Run


def capture(run: Run, *, config: dict[str, Any], classes: tuple[str, ...]) -> dict[str, Any]:
    """Return the whole state, the same on every rank. Every rank must call it.

    The entry "model" is complete and plain: the trained weights with the ranks' mean statistics, under the bare module's names.
    """
    buffers = gather(own_buffers(run.model))
    weights = {name: parameter.detach().cpu() for name, parameter in run.model.state_dict().items()}
    return {
        "schema": SCHEMA,
        "step": run.step,
        "epoch": run.epoch,
        "world_size": run.arithmetic.world_size,
        "config": config,
        "pixels": run.pixels._asdict(),
        "classes": list(classes),
        "model": weights | mean_of_buffers(buffers),
        "buffers": buffers,
        "meters": gather(run.meter.state()),
        "optimizer": plain(run.optimizer.state_dict()),
        "scaler": run.scaler.state_dict(),
        "skipped": run.skipped.state(),
        "average": plain(run.average.state()),
        "evaluation": run.evaluation_weights if run.history.last_step == run.step else None,
        "history": run.history.epochs,
    }


def restore(run: Run, state: dict[str, Any]) -> None:
    """Put a captured state into a freshly built run."""
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    if run.scaler.is_enabled():
        run.scaler.load_state_dict(state["scaler"])
    run.skipped.load(state["skipped"])
    run.average.load(state["average"])
    meters: list[Tensor] = state["meters"]
    if state["world_size"] == run.arithmetic.world_size:
        load_buffers(run.model, state["buffers"][run.rank])
        run.meter.load(meters[run.rank])
    else:
        run.meter.load(torch.stack(meters).sum(dim=0) if run.rank == 0 else torch.zeros_like(meters[0]))
    run.history = History(state["history"])
    run.evaluation_weights = state["evaluation"]
    run.step = state["step"]
    run.saved()


def plain(value: Any, *, copy: bool = False) -> Any:
    """Rebuild nested containers with every tensor on the CPU; one that is there already is shared, unless it is to be copied."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=copy)
    if isinstance(value, dict):
        return {key: plain(item, copy=copy) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item, copy=copy) for item in value)
    return value
