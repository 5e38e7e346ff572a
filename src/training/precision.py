"""Automatic mixed precision, its gradient scaler, and the steps that the scaler skips."""

from contextlib import AbstractContextManager
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision(NamedTuple):
    """What is computed in which type.

    Attributes:
        name: as in the configuration, with auto decided.
        weights: of the parameters.
        inputs: of normalised images.
        device_type: "cuda" or "cpu".
    """

    name: Literal["fp32", "bf16", "fp16", "fp64"]
    weights: torch.dtype
    inputs: torch.dtype
    device_type: str

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context of a forward."""
        dtype = _AUTOCAST.get(self.name)
        context: AbstractContextManager[None] = torch.autocast(self.device_type, dtype=dtype, enabled=dtype is not None)
        return context


def choose_precision(name: Literal["auto", "fp32", "bf16", "fp16", "fp64"], device: torch.device) -> Precision:
    """Decide `auto`: bf16 on a GPU that has it, else fp16; fp32 on a CPU."""
    if name == "auto":
        name = "fp32" if device.type == "cpu" else ("bf16" if torch.cuda.is_bf16_supported() else "fp16")
    weights = torch.float64 if name == "fp64" else torch.float32
    return Precision(name, weights, _AUTOCAST.get(name, weights), device.type)


def clip(scaler: GradScaler, optimizer: Optimizer, model: nn.Module, max_norm: float | None, *, measure: bool) -> Tensor | None:
    """Clip the global gradient norm, and return it if it was wanted or needed. Never waits for the device."""
    if max_norm is None and not measure:
        return None
    scaler.unscale_(optimizer)
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if max_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


class SkippedSteps:
    """Counts, on the device, the steps that the fp16 scaler skipped: in all, and in a row up to now."""

    def __init__(self, scaler: GradScaler, device: torch.device) -> None:
        self._scaler = scaler
        self._counts = torch.zeros(2, dtype=torch.int64, device=device)
        self._scale: Tensor | None = None
        self._moved: Tensor | None = None

    def update(self) -> None:
        """Look at the scaler after its update: its scale falls exactly when it skipped a step."""
        if not self._scaler.is_enabled():
            return
        scale = self._scaler._get_scale_async()  # the public get_scale() waits for the device
        assert scale is not None
        if self._scale is None:
            self._scale = torch.full_like(scale, self._scaler._init_scale)
        skipped = (scale < self._scale).to(torch.int64)
        self._moved = (1 - skipped).float()
        self._counts[0] += skipped[0] if skipped.ndim else skipped
        self._counts[1] = (self._counts[1] + 1) * skipped
        self._scale.copy_(scale)

    def moved(self) -> Tensor | None:
        """Return whether the last step moved the weights: a float32 scalar on the device, 1, or 0 if the scaler skipped it.

        None without a scaler: then every step moves them.
        """
        return self._moved

    def counts(self) -> tuple[int, int]:
        """Return (in all, in a row). Waits for the device."""
        total, in_a_row = self._counts.tolist()
        return total, in_a_row

    def state(self) -> list[int]:
        """Return both counts."""
        return list(self.counts())

    def load(self, state: list[int]) -> None:
        """Go on from a state; the scaler's own state must be loaded already."""
        self._counts.copy_(torch.tensor(state))
        scale = self._scaler.state_dict().get("scale")
        if scale is not None:
            self._scale = torch.full((), scale, dtype=torch.float32, device=self._counts.device)
