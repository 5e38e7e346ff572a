"""Which layer of a model a parameter belongs to, for layer-wise decay of the rate. The head is the last.

A timm model says it itself (group_matcher). For any other the structure is read, and three things are taken for granted: modules
are registered in the order in which they compute, what repeats stands in a Sequential or a ModuleList, and the head comes last.
"""

from collections.abc import Callable
from typing import cast

from torch import nn

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def layer_of_parameters(model: nn.Module) -> dict[nn.Parameter, int]:
    """Number the model's layers from 0, next to the images, to the head.

    Returns:
        The layer of every parameter, frozen ones too.
    """
    if hasattr(model, "group_matcher"):
        from timm.models import group_parameters  # 1.5 s; only a timm model brings it along anyway

        matcher = cast(Callable[..., object], model.group_matcher)
        by_name = group_parameters(model, matcher(coarse=False), reverse=True)
        return {parameter: by_name[name] for name, parameter in model.named_parameters()}
    return layers_by_structure(model)


def layers_by_structure(model: nn.Module) -> dict[nn.Parameter, int]:
    """Number the layers of any model: stem, then every block of the innermost chain of blocks, then the head.

    Opened are the root (and what it only wraps), every container, and every module that holds a chain of blocks: a container with
    at least two children of one class that have at least two weight matrices each, such as residual blocks or the layers of a
    transformer. What is not opened is one layer. What has no weight matrix, such as a norm, belongs to the layer before it, and so
    do parameters that an opened module holds itself, such as a position embedding.
    """
    found: dict[nn.Parameter, int] = {}
    layer = -1

    def visit(module: nn.Module, *, opened: bool) -> None:
        nonlocal layer
        own = list(module.parameters(recurse=not opened))
        if not opened and any(parameter.ndim > 1 and parameter not in found for parameter in own):
            layer += 1
        for parameter in own:
            found.setdefault(parameter, max(layer, 0))
        for child in module.children() if opened else ():
            visit(child, opened=child in wrapped or _is_opened(child))

    wrapped = _wrapped_by(model)
    visit(model, opened=True)
    return found


def _wrapped_by(model: nn.Module) -> list[nn.Module]:
    """Return the only child with weights of the model, the only one of that, and so on."""
    children = [child for child in model.children() if next(child.parameters(), None) is not None]
    return [] if len(children) != 1 else [*children, *_wrapped_by(children[0])]


def _is_opened(module: nn.Module) -> bool:
    chains = (inner for inner in module.modules() if isinstance(inner, _CONTAINERS) and _is_chain(inner))
    return isinstance(module, _CONTAINERS) or next(chains, None) is not None


def _is_chain(container: nn.Module) -> bool:
    blocks = [type(child) for child in container.children() if sum(parameter.ndim > 1 for parameter in child.parameters()) >= 2]
    return len(blocks) > len(set(blocks))
