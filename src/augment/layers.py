"""Operations on a micro-batch, grouped so that one operation on many images is one call.

Before each layer the images are put in the order of their operations: a group is then a slice, and gathering them is one launch.
Indices and parameters of all layers reach the device in one copy. What an image becomes does not depend on the others.
"""

import numpy as np
import torch
from torch import Tensor

from src.augment.laws import Layers
from src.augment.operations import PARAMETERS, Fill, Operation, apply, parameters


def apply_layers(images: Tensor, layers: list[Layers], *, fill: Fill) -> Tensor:
    """Do to each image what was drawn for it.

    Args:
        images: uint8 (N, 3, H, W), in any layout. Not modified.
        layers: what to do, one after the other.
        fill: the colour of what geometric operations uncover; None for black.

    Returns:
        uint8 (N, 3, H, W), channels_last if the images are, in memory of its own.
    """
    operations, values = (np.concatenate([getattr(each, name) for each in layers]) for name in ("operations", "values"))
    idle = (operations == Operation.IDENTITY).all(axis=1)
    operations, values = operations[~idle], values[~idle]
    orders = np.argsort(operations, axis=1, kind="stable")
    operations, values = (np.take_along_axis(array, orders, axis=1) for array in (operations, values))
    groups = [_groups(row) for row in operations]
    numbers = np.zeros((*operations.shape, PARAMETERS), np.float32)
    for row, row_values, row_groups in zip(numbers, values, groups, strict=True):
        for operation, here in row_groups:
            row[here] = parameters(operation, row_values[here], *images.shape[-2:])
    takes, device_numbers = _both_to_device(_steps(orders, len(images)), numbers, images.device)

    channels_last = images.is_contiguous(memory_format=torch.channels_last)  # then normalising reads it fastest
    current = images.contiguous().index_select(0, takes[0])
    for place, row_groups in enumerate(groups):
        for operation, here in row_groups:
            changed = apply(operation, current[here], device_numbers[place, here], values[place, here], fill=fill)
            current[here].copy_(changed)
        current = current.index_select(0, takes[place + 1])
    return current.contiguous(memory_format=torch.channels_last) if channels_last else current


def _groups(operations: np.ndarray) -> list[tuple[Operation, slice]]:
    """Return where each operation stands in a sorted row; what is left alone is no group."""
    kinds, starts = np.unique(operations, return_index=True)
    ends = [*starts[1:].tolist(), len(operations)]
    return [
        (Operation(kind), slice(start, end))
        for kind, start, end in zip(kinds.tolist(), starts.tolist(), ends, strict=True)
        if kind != Operation.IDENTITY
    ]


def _steps(orders: np.ndarray, count: int) -> np.ndarray:
    """Return (L + 1, N): which image of the order before comes next, from the batch's own order through all and back."""
    own = np.arange(count)[None]
    before, after = np.concatenate([own, orders]), np.concatenate([orders, own])
    return np.take_along_axis(np.argsort(before, axis=1), after, axis=1)


def _both_to_device(takes: np.ndarray, numbers: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Copy both as one block of 32-bit words."""
    words = to_device(np.concatenate([takes.astype(np.int32).ravel(), numbers.view(np.int32).ravel()]), device)
    indices, rest = words[: takes.size], words[takes.size :]
    return indices.view(takes.shape), rest.view(torch.float32).view(numbers.shape)


def to_device(numbers: np.ndarray, device: torch.device) -> Tensor:
    """Copy a few numbers to the device without waiting for it."""
    tensor = torch.from_numpy(numbers)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
