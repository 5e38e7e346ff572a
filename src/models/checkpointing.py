"""Gradient checkpointing (Chen et al. 2016, arXiv:1604.06174): a block keeps its input only, and is computed again going backward.

What is trained is the same, bit for bit: the second computation draws the same random numbers and runs under the same autocast
(torch.utils.checkpoint sees to both), and its norms leave their running statistics alone (plain checkpointing moves them twice).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from src.models.mixing_in import mix_in

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def checkpoint_blocks(model: nn.Module) -> int:
    """Let every block be computed twice, in place; the names in the state dict stay.

    A block is found by structure: an item of a stack that has several layers with weights. Stacks are Sequential, ModuleList, and
    modules whose children are all of one such type (timm's RegNet stages); an item that holds a stack itself is looked into.

    Args:
        model: any; on any device, meta included.

    Returns:
        how many blocks there are; 0 where the model is not a stack of blocks.
    """
    blocks = list(dict.fromkeys(_blocks(model)))
    for block in blocks:
        mix_in(block, Checkpointed)
    return len(blocks)


class Checkpointed(nn.Module):
    """For a block. In evaluation, where nothing is kept anyway, it does nothing."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the block returns."""
        if not torch.is_grad_enabled():
            return super().forward(*args, **kwargs)
        args = tuple(
            list(arg) if isinstance(arg, list) else arg for arg in args
        )  # DenseNet's list grows after the block has read it
        if torch.compiler.is_compiling():  # what is traced moves its norms once, and takes no contexts
            return checkpoint(super().forward, *args, use_reentrant=False, **kwargs)
        return checkpoint(super().forward, *args, use_reentrant=False, context_fn=partial(_contexts, self), **kwargs)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _without_statistics(block)


@contextmanager
def _without_statistics(block: nn.Module) -> Iterator[None]:
    """Let norms in training mode write their running statistics where nobody reads them.

    Their own must not be None meanwhile: the kernel would keep fewer tensors than it did the first time.
    """
    own: list[tuple[dict[str, Tensor | None], str, Tensor]] = []
    for module in block.modules():
        if module.training and getattr(module, "track_running_stats", False) is True:
            for name, buffer in module._buffers.items():
                if name in _STATISTICS and buffer is not None:
                    own.append((module._buffers, name, buffer))
    for buffers, name, buffer in own:
        # A count is divided by where a norm has no momentum; the others' values are never looked at.
        buffers[name] = torch.empty_like(buffer) if buffer.is_floating_point() else torch.zeros_like(buffer)
    try:
        yield
    finally:
        for buffers, name, buffer in own:
            buffers[name] = buffer


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if (
            _is_stack(module)
            and _num_layers(child) > 1
            and not any(_is_stack_of_blocks(part) for part in (child, *child.children()))
        ):
            yield child
        else:
            yield from _blocks(child)


def _is_stack(module: nn.Module) -> bool:
    children = list(module.children())
    alike = (
        len(children) > 1 and len({type(child) for child in children}) == 1 and all(_num_layers(child) > 1 for child in children)
    )
    return isinstance(module, nn.Sequential | nn.ModuleList) or alike


def _is_stack_of_blocks(module: nn.Module) -> bool:
    """Tell a stage from a block that has Sequentials inside, such as convolutions with their norms."""
    several = [type(child) for child in module.children() if _num_layers(child) > 1 and not isinstance(child, nn.Sequential)]
    return _is_stack(module) and len(several) > len(set(several))


def _num_layers(module: nn.Module) -> int:
    return sum(any(True for _ in part.parameters(recurse=False)) for part in module.modules())
