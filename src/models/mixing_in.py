"""Give a module that exists another forward, and leave everything else of it as it is."""

from torch import nn

_combined: dict[tuple[type[nn.Module], type[nn.Module]], type[nn.Module]] = {}


def mix_in(module: nn.Module, mixin: type[nn.Module]) -> None:
    """Put a mixin's methods before those of the module's own class, in place.

    Unlike a wrapper this keeps the module's name in the state dict, its parameters (an optimizer may hold them already), its
    hooks, and what `isinstance` says of it; unlike a hook it is copied with the module.

    Args:
        module: changed. Its class becomes a subclass of (mixin, its old class), made once for each pair.
        mixin: adds no parameters; its `super().forward` is the module's own.
    """
    own = type(module)
    if (mixin, own) not in _combined:
        _combined[mixin, own] = type(f"{mixin.__name__}{own.__name__}", (mixin, own), {})
    module.__class__ = _combined[mixin, own]
