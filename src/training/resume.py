"""A run's state as tensors and plain containers, and back. What is captured and restored goes on bit for bit.

At another world size the global order goes on exactly; BatchNorm then starts from the ranks' mean statistics.
"""

from typing import Any

import torch
from torch import Tensor

from src.distributed import gather
from src.training.batch_norm import load_buffers, mean_of_buffers, own_buffers
from src.training.checkpoint_file import SCHEMA
from src.training.history import History
from src.training.run import Run


def capture(run: Run, *, config: dict[str, Any], classes: tuple[str, ...]) -> dict[str, Any]:
    """Copy the whole state to the host's memory on rank 0, which writes it; on the others, return {}. Every rank must call it.

    The copy shares no tensor and no container with the run: training may go on while it is written. The entry "model" is complete
    and plain: the trained weights with the ranks' mean statistics, under the bare module's names.
    """
    buffers, meters = gather(own_buffers(run.model)), gather(run.meter.state())
    if run.rank != 0:
        return {}
    return {
        "schema": SCHEMA,
        "step": run.step,
        "epoch": run.epoch,
        "world_size": run.arithmetic.world_size,
        "threads": torch.get_num_threads() if run.device.type == "cpu" else None,  # the order of a CPU's sums depends on it
        "config": config,
        "pixels": run.pixels._asdict(),
        "classes": list(classes),
        "model": host_copy(dict(run.model.state_dict())) | mean_of_buffers(buffers),
        "buffers": buffers,
        "meters": meters,
        "optimizer": host_copy(run.optimizer.state_dict()),
        "scaler": run.scaler.state_dict(),
        "skipped": run.skipped.state(),
        "average": host_copy(run.average.state()),
        "evaluation": run.evaluation_weights if run.history.last_step == run.step else None,  # replaced, never written into
        "history": host_copy(run.history.epochs),
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


def host_copy(value: Any) -> Any:
    """Copy nested containers, with every tensor, into the host's memory. Waits for the device once, at the end.

    From a GPU the copies go to pinned memory, whose blocks torch keeps for the next time.
    """
    copy = _copy(value)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.current_stream().synchronize()
    return copy


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        pinned = value.device.type == "cuda"
        return torch.empty_like(value, device="cpu", pin_memory=pinned).copy_(value.detach(), non_blocking=pinned)
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy(item) for item in value)
    return value
