"""What a model computes: forward FLOPs of one image, counted without its weights, and what training multiplies them by."""

import copy

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

_BACKWARD = 2  # gradients of the inputs and of the weights: a forward each


def forward_flops(model: nn.Module, image_size: int) -> float:
    """Return forward FLOPs of one image in evaluation, two for each multiply-add of convolutions and matrix products.

    The count is torch's (torch.utils.flop_counter), on a copy of the model whose tensors have shapes only (the meta device), so it
    costs neither memory nor the GPU's time. A model that computes with values on its way is counted on one image on the CPU. The
    model itself, its norms' statistics and every random generator stay as they are.

    Args:
        model: bare, on any device, in any mode.
        image_size: side in pixels.

    Raises:
        Exception: whatever the model raises for such an image.
    """
    with torch.random.fork_rng(devices=()):
        try:
            return _count(_twin(model, torch.device("meta")), image_size, torch.device("meta"))
        except Exception:  # noqa: BLE001 (whatever a model's own code raises)
            return _count(_twin(model, torch.device("cpu")), image_size, torch.device("cpu"))


def forwards_a_step(*, gradient_checkpointing: bool, sam_every_steps: int | None) -> float:
    """Return how many forwards one training step costs, each image's backward taken for two (Kaplan et al. 2020, arXiv:2001.08361).

    Args:
        gradient_checkpointing: then the forward is computed again going backward, which counts: the hardware does it.
        sam_every_steps: every so many steps SAM computes forward and backward twice; None without SAM.
    """
    passes = 1.0 if sam_every_steps is None else 1 + 1 / sam_every_steps
    return passes * (1 + _BACKWARD + (1 if gradient_checkpointing else 0))


def _twin(model: nn.Module, device: torch.device) -> nn.Module:
    """Copy a model with its tensors on another device; on the meta device without their values, and nothing is copied at first."""
    twins: dict[int, object] = {}
    for parameter in model.parameters():
        twins[id(parameter)] = nn.Parameter(_elsewhere(parameter, device), requires_grad=False)
    for buffer in model.buffers():
        twins[id(buffer)] = _elsewhere(buffer, device)
    return copy.deepcopy(model, twins).eval()


def _elsewhere(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "meta":
        return torch.empty_like(tensor, device=device)
    return tensor.detach().to(device, copy=True)


def _count(twin: nn.Module, image_size: int, device: torch.device) -> float:
    dtype = next(twin.parameters()).dtype
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(torch.zeros(1, 3, image_size, image_size, device=device, dtype=dtype))
    return float(counter.get_total_flops())
