"""A file of anybody's weights, read in the one way that it can be read, and how many classes it tells apart."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.config import ConfigError
from src.config.model import ModelConfig
from src.models.build import build_model
from src.models.head import heads
from src.models.weights import WRAPPERS, is_state_dict, own_name, read_content, unreadable

_TRAINED = ("state_dict", "model")  # what timm, Lightning and Composer call a training's weights; torchvision's references
_AVERAGED = ("state_dict_ema", "model_ema")  # and their exponential means
_NOT_OF_THE_MODEL = ("n_averaged",)  # of torch.optim.swa_utils.AveragedModel, which is what model_ema is the state of
_ANY_CLASSES = 10  # of a model that is only asked for its names


class Reading(NamedTuple):
    """What a file holds.

    Attributes:
        weights: "trained", or "ema" where it holds a mean of them besides, which is taken.
        state_dict: by the names that stand in the file.
    """

    weights: str
    state_dict: Mapping[str, Tensor]


def read_weights(path: Path, *, trained: bool) -> Reading:
    """Read a state dict, alone or wrapped as training scripts save it.

    Args:
        path: of a file of PyTorch's or of safetensors'.
        trained: whether to leave a mean of the weights aside.

    Raises:
        ConfigError: if it cannot be read, holds none, or could be read in two ways.
    """
    content = read_content(path)
    if is_state_dict(content):
        return Reading("trained", _of_one_reading(path, content))
    if not isinstance(content, Mapping):
        raise unreadable(path, f"holds a {type(content).__name__}, no state dict.")
    plain, means = _held(content, _TRAINED), _held(content, _AVERAGED)
    for found in (plain, means):
        if len(found) > 1:
            fix = f"holds weights as {found[0]!r} and as {found[1]!r}: which are meant? Save the one state dict alone."
            raise unreadable(path, fix)
    if means and not trained:
        state_dict = {name: tensor for name, tensor in content[means[0]].items() if name not in _NOT_OF_THE_MODEL}
        return Reading("ema", _of_one_reading(path, state_dict))
    if not plain:
        held = ", ".join(map(repr, [*content][:5])) or "nothing"
        raise unreadable(path, f"holds no state dict, neither alone nor as 'state_dict' or 'model' (it holds {held}).")
    return Reading("trained", _of_one_reading(path, content[plain[0]]))


def classes_in(path: Path, state_dict: Mapping[str, Tensor], config: ModelConfig) -> int:
    """Return the number of classes that the model's head has in a state dict.

    Raises:
        ConfigError: if there is no such head in it, or timm has no such model.
    """
    with torch.device("meta"):
        model = build_model(config, num_classes=_ANY_CLASSES)
    own = model.state_dict()
    given = {own_name(name, own): tensor for name, tensor in state_dict.items()}
    counts = {name: len(given[name]) for head in heads(model) if (name := f"{head}.weight") in given and given[name].ndim}
    if len({*counts.values()}) == 1:
        return next(iter(counts.values()))
    arch = getattr(config, "arch", config.name)
    if counts:
        raise unreadable(path, f"has heads of different numbers of classes: {counts}.")
    wanted = ", ".join(f"{head}.weight" for head in heads(model)) or "a head"
    some = ", ".join([*state_dict][:3])
    raise unreadable(path, f"is not of model={arch}: it lacks {wanted}, and has {some}, ... Type the model that it is of.")


def _held(content: Mapping[Any, Any], names: tuple[str, ...]) -> list[str]:
    return [name for name in names if is_state_dict(content.get(name))]


def _of_one_reading(path: Path, state_dict: Mapping[Any, Tensor]) -> Mapping[str, Tensor]:
    """Refuse two tensors that would be one once the prefixes of DistributedDataParallel and torch.compile are taken away."""
    bare: dict[str, str] = {}
    for name in map(str, state_dict):
        shorter = name
        while prefix := next((prefix for prefix in WRAPPERS if shorter.startswith(prefix)), ""):
            shorter = shorter.removeprefix(prefix)
        if shorter in bare:
            fix = f"holds {shorter!r} twice, as {bare[shorter]!r} and as {name!r}: which is meant? Save the one state dict alone."
            raise unreadable(path, fix)
        bare[shorter] = name
    return {str(name): tensor for name, tensor in state_dict.items()}


def in_words(error: ConfigError, key: str) -> ConfigError:
    """Return the error with another key in the place of model.weights."""
    problems = [problem._replace(path=key) if problem.path == "model.weights" else problem for problem in error.problems]
    return ConfigError(error.stage, problems)
