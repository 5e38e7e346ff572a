"""Pruned models: layers as narrow as their weights, and weights that stay zero while the others train.

A file of pruned weights says so itself, in safetensors' metadata, so that `model.weights=<file>` goes on with the pruned model
under any recipe: nothing else has to be told.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from src.models.head import heads

Kind = Literal["unstructured", "channels"]
METADATA_KEY = "pruned"


def kind_of_file(path: Path) -> Kind | None:
    """Return how the weights of a file were pruned, if it is a safetensors file that says so."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get(METADATA_KEY)
    except (OSError, SafetensorError):
        return None  # another format, or none: who reads it says what is wrong with it
    return cast(Kind, said) if said in get_args(Kind) else None


def fit_channels(model: nn.Module, state_dict: Mapping[str, Tensor]) -> int:
    """Make layers as wide as a state dict's tensors, in place. What the new tensors hold is arbitrary: load the state dict next.

    Only the number of channels may differ. Convolutions with several groups keep their number of groups, depthwise ones have one
    a channel.

    Args:
        model: the full architecture, on any device.
        state_dict: by the model's names. Names that the model lacks are left to whoever loads it.

    Returns:
        how many tensors were replaced; 0 where the widths are the model's own.
    """
    replaced = 0
    classes = set(heads(model))  # their number is the model's, whatever the file's
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        before = {own: tuple(tensor.shape) for own, tensor in _tensors(module)}
        for own, shape in before.items():
            given = state_dict.get(prefix + own)
            if given is None or given.dim() != len(shape):
                continue
            wanted = (*shape[:1], *given.shape[1:]) if name in classes else tuple(given.shape)
            if wanted == shape:
                continue
            old = getattr(module, own)
            new = torch.zeros(wanted, dtype=old.dtype, device=old.device)
            setattr(module, own, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
            replaced += 1
        if any(tuple(tensor.shape) != before[own] for own, tensor in _tensors(module)):
            _tell_widths(module)
    return replaced


def keep_zeros(model: nn.Module) -> int:
    """Let no gradient reach weights that are zero, so that they stay zero under every optimizer of ours.

    A weight of zero whose gradient is always zero gets no momentum, no second moment and no decay: its update is zero exactly.
    (Zeroing weights after each update instead would leave momentum behind, and miss what an average has taken already.)

    Args:
        model: with its weights loaded, before its optimizer is built.

    Returns:
        how many weights are held at zero.
    """
    held = 0
    for weight in prunable(model).values():
        mask = weight.detach() != 0
        if not bool(mask.all()):
            weight.register_hook(_Masked(mask))  # type: ignore[no-untyped-call]
            held += int((~mask).sum())
    return held


class _Masked:
    """A gradient's hook. A class, for a closure over a loop's variable would hold the last one's."""

    def __init__(self, mask: Tensor) -> None:
        self._mask = mask

    def __call__(self, gradient: Tensor) -> Tensor:
        return gradient * self._mask


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of convolutions, linear layers and attention's projections, by name: what magnitudes are compared of."""
    found: dict[str, nn.Parameter] = {}
    for name, module in model.named_modules():
        own = "in_proj_weight" if isinstance(module, nn.MultiheadAttention) else "weight"
        weight = getattr(module, own, None)
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear | nn.MultiheadAttention) and isinstance(weight, nn.Parameter):
            found[f"{name}.{own}" if name else own] = weight
    return found


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)


def _tell_widths(module: nn.Module) -> None:
    """Set a layer's own numbers of channels from its tensors."""
    match module:
        case nn.Conv2d():
            depthwise = module.groups == module.in_channels and module.groups > 1
            module.groups = module.weight.shape[0] if depthwise else module.groups
            module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
        case nn.Linear():
            module.out_features, module.in_features = module.weight.shape
        case nn.modules.batchnorm._BatchNorm():
            assert module.running_mean is not None
            module.num_features = len(module.running_mean)
        case nn.LayerNorm():
            module.normalized_shape = tuple(module.weight.shape)
        case nn.GroupNorm():
            module.num_channels = len(module.weight)
        case _:
            pass  # a scale of its own, such as ConvNeXt's: no number to tell
