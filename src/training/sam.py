"""Sharpness-aware minimisation: the gradient is taken a little uphill, and the step made from where the weights stand.

Foret et al. 2021, arXiv:2010.01412. A step costs two passes; only every k-th step need be one.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn


class Sam:
    """Climb before the gradient is taken. It holds no state: whether a step climbs is a function of the step.

    Args:
        rho: how far to climb, as a Euclidean distance over all weights together.
        every_steps: climb at steps 0, k, 2k, ...; the others are plain.
    """

    def __init__(self, rho: float, every_steps: int) -> None:
        self._rho, self._every_steps = rho, every_steps

    def is_due(self, step: int) -> bool:
        """Return whether this step climbs."""
        return step % self._every_steps == 0

    @contextmanager
    def climbed(self, model: nn.Module) -> Iterator[None]:
        """Stand at w + rho * g / (||g|| + 1e-12) inside (the paper's equation 2 with p = 2), g being the gradients found on entry.

        Inside, no gradient is there yet. Outside again, also after an exception, every weight and buffer has the bits that it had
        before: BatchNorm's running statistics, which belong to the weights that are trained, rest. The gradients are those that
        were gathered inside. A loss scale by which g is multiplied cancels. If g is not finite, neither is what is computed inside,
        so that the fp16 scaler skips the step. The device is never waited for.

        Args:
            model: parameters in float32 or float64. Those without a gradient stay where they are.
        """
        climbing = [parameter for parameter in model.parameters() if parameter.grad is not None]
        gradients = [parameter.grad for parameter in climbing if parameter.grad is not None]
        weights = [parameter.detach() for parameter in climbing]
        resting = weights + list(model.buffers())
        kept = [torch.empty_like(tensor) for tensor in resting]
        _copy(kept, resting)
        with torch.no_grad():
            norm = nn.utils.get_total_norm(gradients)
            if gradients:
                torch._foreach_mul_(gradients, self._rho / (norm + 1e-12))  # in place: they are thrown away
                torch._foreach_add_(weights, gradients)
        for parameter in climbing:
            parameter.grad = None
        try:
            yield
        finally:
            _copy(resting, kept)


class NoSam:
    """Every step is a plain one."""

    def is_due(self, step: int) -> bool:
        """Return False."""
        return False

    def climbed(self, model: nn.Module) -> AbstractContextManager[None]:
        """Fail: no step climbs."""
        raise AssertionError("no step is due")


@torch.no_grad()
def _copy(there: Sequence[Tensor], here: Sequence[Tensor]) -> None:
    """Copy tensors, those of one type in one kernel."""
    for dtype in {tensor.dtype for tensor in here}:
        torch._foreach_copy_(
            [tensor for tensor in there if tensor.dtype == dtype], [tensor for tensor in here if tensor.dtype == dtype]
        )
