"""Pruning by magnitude: the smallest weights become zero, or the least channels go. In place, without training."""

import copy
import warnings
import zlib
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from src.config import ConfigError, Problem
from src.models.head import heads
from src.models.pruned import METADATA_KEY, Kind, fit_channels, prunable

_HALVINGS = 7  # of the interval in which the share of channels is searched: to within a hundredth


class Size(NamedTuple):
    """What a model costs.

    Attributes:
        parameters: all of them.
        weights: of convolutions, linear layers and attention's projections.
        nonzero: of these weights.
        flops: of one image forward, two a multiply-add, zeros counted as any other weight.
        file_bytes: of the state dict as safetensors.
        compressed_bytes: of that through zlib: what zeros save.
    """

    parameters: int
    weights: int
    nonzero: int
    flops: int
    file_bytes: int
    compressed_bytes: int


def size_of(model: nn.Module, image: Tensor) -> Size:
    """Count a model.

    Args:
        model: in evaluation mode.
        image: (1, 3, S, S), of the model's type and device.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    data = pruned_file(model, None)
    weights = list(prunable(model).values())
    return Size(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        weights=sum(weight.numel() for weight in weights),
        nonzero=sum(int(weight.count_nonzero()) for weight in weights),
        flops=counter.get_total_flops(),
        file_bytes=len(data),
        compressed_bytes=len(zlib.compress(data)),
    )


def pruned_file(model: nn.Module, kind: Kind | None) -> bytes:
    """Return the state dict as a safetensors file that says how it was pruned."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return save(tensors, {"format": "pt"} | ({} if kind is None else {METADATA_KEY: kind}))


def prune_weights(model: nn.Module, share: float) -> None:
    """Set the weights of smallest magnitude to zero, over all layers together (Han et al. 2015, arXiv:1506.02626).

    All of `prunable` takes part, first and last layer included; norms and biases do not.

    Args:
        model: changed in place; its weights are laid out plainly then.
        share: of these weights, in (0, 1).
    """
    from torch.nn.utils import prune

    model.to(memory_format=torch.contiguous_format)  # torch's function cannot flatten others
    owned = [name.rpartition(".") for name in prunable(model)]
    parts = [(model.get_submodule(path), own) for path, _, own in owned]
    prune.global_unstructured(parts, pruning_method=prune.L1Unstructured, amount=share)
    for module, own in parts:
        prune.remove(module, own)  # type: ignore[no-untyped-call]  # the zeros stay, the mask goes


def prune_channels(model: nn.Module, share: float, image: Tensor, build: Callable[[], nn.Module]) -> nn.Module:
    """Take whole channels away, so that about `share` of the weights goes, and what is left is a smaller dense model.

    Torch-Pruning finds which layers must shrink together (DepGraph, Fang et al. 2023, arXiv:2301.12900); channels go by their
    group's magnitude, the same share of every layer, the classes' head excepted. Where most layers have 64 channels or more, they
    stay multiples of 8, which vector units and tensor cores want; below that multiples of 8 would be too few to choose from.

    Args:
        model: on the CPU, in evaluation mode. Not changed.
        share: of the weights of `prunable`, in (0, 1).
        image: (1, 3, S, S), float32.
        build: makes the full model afresh, to see that the weights alone tell the pruned one.

    Returns:
        the pruned model: one of `build`'s with narrower layers.

    Raises:
        ConfigError: if Torch-Pruning is missing, or this architecture cannot be cut.
    """
    whole = _count(model)
    low, high = 0.0, 1.0
    best: tuple[float, nn.Module] | None = None
    for _ in range(_HALVINGS):
        ratio = (low + high) / 2
        cut = _cut(model, ratio, image)
        gone = 1 - _count(cut) / whole
        if best is None or abs(gone - share) < best[0]:
            best = abs(gone - share), cut
        low, high = (ratio, high) if gone < share else (low, ratio)
    assert best is not None
    state = best[1].state_dict()
    fresh = build()
    try:
        fit_channels(fresh, state)
        fresh.load_state_dict(state)
        with torch.no_grad():
            same = bool((fresh.eval()(image) - best[1](image)).abs().max() <= 1e-4)
    except (RuntimeError, ValueError) as error:
        raise _cannot(error) from error
    if not same:
        raise _cannot("its weights alone do not tell the smaller model")
    return fresh


def _cut(model: nn.Module, ratio: float, image: Tensor) -> nn.Module:
    try:
        import torch_pruning
    except ImportError as error:
        fix = "needs Torch-Pruning. Type: pip install -e '.[prune]', or take prune_kind=unstructured."
        raise ConfigError("the pruning", [Problem("prune_kind", "channels", fix)]) from error
    smaller = copy.deepcopy(model)
    kept = [smaller.get_submodule(name) for name in heads(smaller)]
    wide = median(len(weight) for weight in prunable(smaller).values()) >= 64
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scales without a layer, which it prunes as it should
            torch_pruning.pruner.BasePruner(
                smaller, image, importance=importance, pruning_ratio=ratio, ignored_layers=kept, round_to=8 if wide else None
            ).step()
            with torch.no_grad():
                smaller(image)
    except Exception as error:  # whatever an unknown architecture brings about in a graph's walk
        raise _cannot(error) from error
    return smaller.eval()


def _count(model: nn.Module) -> int:
    return sum(weight.numel() for weight in prunable(model).values())


def _cannot(reason: object) -> ConfigError:
    first = str(reason).partition("\n")[0][:200]
    fix = f"the channels of this architecture cannot be cut ({first}). Take prune_kind=unstructured."
    return ConfigError("the pruning", [Problem("prune_kind", "channels", fix)])
