"""Weights to begin from: a state dict from a file, and into a model that may have another number of classes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.config import ConfigError, Problem
from src.models.head import heads

WRAPPERS = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before a name
_CONTAINERS = ("state_dict", "model")  # timm, Lightning, Composer; torchvision's references


def load_weights(model: nn.Module, state_dict: Mapping[str, Tensor], *, path: str) -> list[str]:
    """Load a plain state dict into the model, in place; a classifier head of another number of classes stays fresh.

    The head is what a timm model says it is, else the last Linear or 1x1 convolution. Tensors are cast to the model's types and
    devices. Prefixes of DistributedDataParallel and torch.compile are taken away; what only torchvision's auxiliary heads need is
    left out, and a file from before PyTorch 0.4.1 may lack the norms' batch counts, as in PyTorch.

    Args:
        model: changed only if everything fits.
        state_dict: by name, on any device.
        path: where it is from, for messages.

    Returns:
        the names that stay fresh, in the model's order; none where the classes agree.

    Raises:
        ConfigError: if a name is missing, not of the model, or has another shape.
    """
    own = model.state_dict()
    given = {own_name(name, own): tensor for name, tensor in state_dict.items()}
    if getattr(model, "aux_logits", None) is False:
        given = {name: tensor for name, tensor in given.items() if name in own or not name.lower().startswith("aux")}
    counts = [name for name in own if name.endswith(".num_batches_tracked")]
    if not any(name in given for name in counts):
        given |= {name: torch.zeros((), dtype=torch.int64) for name in counts}
    parts = [{name for name in own if name.startswith(f"{head}.")} for head in heads(model)]
    fresh = {name for head in parts if _other_classes(head, own, given) for name in head}
    problems = [
        *_problem(path, "lacks names of the model", [name for name in own if name not in given]),
        *_problem(path, "has names that the model lacks", [name for name in given if name not in own]),
        *_problem(
            path,
            "has other shapes than the model",
            [
                f"{name} {tuple(given[name].shape)}, not {tuple(own[name].shape)}"
                for name in own
                if name in given and name not in fresh and given[name].shape != own[name].shape
            ],
        ),
    ]
    if problems:
        raise ConfigError("the model", problems)
    model.load_state_dict({name: own[name] if name in fresh else given[name] for name in own})
    return [name for name in own if name in fresh]


def read_state_dict(path: Path) -> Mapping[str, Tensor]:
    """Read a state dict from a file of PyTorch's or of safetensors', told by its content, onto the CPU.

    A file that holds more than the weights gives what it has under "state_dict" or "model".

    Raises:
        ConfigError: if the file cannot be read, is of neither kind, or holds no state dict.
    """
    content = read_content(path)
    for container in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
            break
    if not is_state_dict(content):
        raise unreadable(path, "holds no state dict, neither alone nor as 'state_dict' or 'model'.")
    return {str(name): tensor for name, tensor in content.items()}


def is_state_dict(content: object) -> bool:
    """Return whether it is tensors by name, and at least one."""
    return isinstance(content, Mapping) and bool(content) and all(isinstance(tensor, Tensor) for tensor in content.values())


def read_content(path: Path) -> Any:
    """Read all that stands in a file of PyTorch's or of safetensors', told by its content, onto the CPU. Runs no code from it.

    Raises:
        ConfigError: if the file cannot be read, or is of neither kind.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise unreadable(path, f"{error.strerror or error}. Give the path of a file of weights.") from error
    if start[8:] == b"{":
        return _read_safetensors(path)
    if not start.startswith((b"PK", b"\x80")):
        raise unreadable(path, "is no file of torch.save or of safetensors.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling what is not tensors, or damaged: many types
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        fix = f"cannot be read as tensors only ({first}). Save the state dict alone: torch.save(model.state_dict(), path)."
        raise unreadable(path, fix) from error


def _read_safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise unreadable(path, "is a safetensors file. Type: pip install safetensors") from error
    try:
        return load_file(path)
    except Exception as error:  # SafetensorError, which the stubs do not tell
        raise unreadable(path, f"is a damaged safetensors file ({error}).") from error


def unreadable(path: Path, fix: str) -> ConfigError:
    """Return what to raise for a file of weights."""
    return ConfigError("the model", [Problem("model.weights", str(path), fix)])


def own_name(name: str, own: Mapping[str, Tensor]) -> str:
    """Take prefixes away until the model knows the name; a model may have a part called "module" itself."""
    shorter = name
    while shorter not in own:
        prefix = next((prefix for prefix in WRAPPERS if shorter.startswith(prefix)), None)
        if prefix is None:
            return shorter
        shorter = shorter.removeprefix(prefix)
    return shorter


def _other_classes(head: set[str], own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> bool:
    """Tell whether all of a head is there, and differs in the number of classes and in nothing else."""
    if any(name not in given or own[name].shape[1:] != given[name].shape[1:] for name in head):
        return False
    return any(own[name].shape != given[name].shape for name in head)


def _problem(path: str, how: str, names: list[str]) -> list[Problem]:
    if not names:
        return []
    some = ", ".join(names[:5]) + (" and more" if len(names) > 5 else "")
    return [Problem("model.weights", path, f"{how} ({len(names)}): {some}. Give weights of this very model.")]
