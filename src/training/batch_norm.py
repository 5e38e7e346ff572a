"""BatchNorm's statistics: each rank's own, their mean over ranks, and new ones for weights that were not trained at."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from src.distributed import sum_over_ranks, world_size


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
    try:
        for images in batches:
            model(images)
    finally:  # an evaluation may be broken off
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
