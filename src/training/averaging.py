"""Evaluate at other weights than you train at: one idea for schedule-free and every average. It never changes training state.

Schedule-free's own eval() then train() is not bit-exact, so the training weights are kept aside and the same bits put back.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from src.distributed import gather, sum_over_ranks, world_size


class Average(Protocol):
    """Which weights are evaluated."""

    name: str
    recalibrate_images: int

    def update(self, model: nn.Module) -> None:
        """Follow the weights after an optimizer step."""

    def swap_in(self, model: nn.Module) -> None:
        """Put the evaluation weights into the model. The caller has saved the training weights."""

    def swap_out(self) -> None:
        """Undo what swap_in changed outside the model's tensors."""

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs beyond the optimizer's state."""

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""


class NoAverage:
    """The trained weights themselves."""

    name = "trained"
    recalibrate_images = 0

    def update(self, model: nn.Module) -> None:
        """Do nothing."""

    def swap_in(self, model: nn.Module) -> None:
        """Do nothing."""

    def swap_out(self) -> None:
        """Do nothing."""

    def state(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Do nothing."""


class ScheduleFreeAverage:
    """Schedule-free's x (Defazio et al. 2024, arXiv:2405.15682): training happens at y, the average lies in the optimizer."""

    name = "schedule_free"

    def __init__(self, optimizer: Optimizer, *, recalibrate_images: int) -> None:
        self._optimizer, self.recalibrate_images = optimizer, recalibrate_images

    def update(self, model: nn.Module) -> None:
        """Do nothing: the optimizer's step averages."""

    def swap_in(self, model: nn.Module) -> None:
        """Let the optimizer compute x in place."""
        self._optimizer.eval()  # type: ignore[attr-defined]

    def swap_out(self) -> None:
        """Tell the optimizer that it trains again. Its own train() would compute y anew, with other bits."""
        for group in self._optimizer.param_groups:
            group["train_mode"] = True

    def state(self) -> dict[str, Any]:
        """Return nothing: all of it is the optimizer's."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Do nothing."""


@contextmanager
def evaluation_weights(model: nn.Module, average: Average, recalibration: Iterator[Tensor]) -> Iterator[None]:
    """Hold the weights and BatchNorm statistics to evaluate at inside, and exactly the training state again outside.

    Args:
        model: the unwrapped module.
        average: which weights.
        recalibration: normalised training images, from which an average's BatchNorm statistics are gathered. Not touched where the
            trained weights are evaluated: then the statistics are the ranks' mean.
    """
    kept = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    was_training = model.training
    average.swap_in(model)
    try:
        if average.recalibrate_images:
            recalibrate_batch_norm(model, recalibration)
        else:
            load_buffers(model, mean_of_buffers(gather(own_buffers(model))))
        model.eval()
        yield
    finally:
        model.load_state_dict(kept)
        average.swap_out()
        model.train(was_training)


def own_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Copy this rank's buffers (BatchNorm statistics) to the CPU, those that a state dict holds."""
    persistent = model.state_dict().keys()
    return {name: buffer.detach().cpu().clone() for name, buffer in model.named_buffers() if name in persistent}


def mean_of_buffers(of_ranks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Average floating-point buffers over ranks, in float64 and in rank order; the rest is the same on all ranks."""
    if len(of_ranks) == 1:
        return of_ranks[0]
    mean = {}
    for name, first in of_ranks[0].items():
        mean[name] = first
        if first.is_floating_point():
            mean[name] = torch.stack([buffers[name].double() for buffers in of_ranks]).mean(dim=0).to(first.dtype)
    return mean


@torch.no_grad()
def load_buffers(model: nn.Module, values: dict[str, Tensor]) -> None:
    """Set the model's buffers that are given."""
    for name, buffer in model.named_buffers():
        if name in values:
            buffer.copy_(values[name])


@torch.no_grad()
def recalibrate_batch_norm(model: nn.Module, batches: Iterator[Tensor]) -> None:
    """Gather BatchNorm statistics anew at the model's present weights, over all ranks.

    Each rank takes the plain mean over its batches (momentum=None); means and second moments are then averaged over ranks.

    Args:
        model: unwrapped. Only its norms are in training mode, so dropout stays off.
        batches: this rank's normalised images (N, 3, H, W).
    """
    norms = [
        module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None
    for images in batches:
        model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    ranks = world_size()
    if ranks > 1:
        for norm in norms:
            assert norm.running_mean is not None and norm.running_var is not None
            mean, variance = norm.running_mean.double(), norm.running_var.double()
            first, second = sum_over_ranks(mean) / ranks, sum_over_ranks(variance + mean**2) / ranks
            norm.running_mean.copy_(first)
            norm.running_var.copy_(second - first**2)
