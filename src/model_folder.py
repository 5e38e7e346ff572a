"""A trained model as a folder that others can use: `model.safetensors`, and `config.json` with all that the weights do not tell.

config.json holds
    format          "imagenet-trainer"
    format_version  1
    architecture    the model's name, such as "resnet50" or "timm_resnet50d"
    num_classes     K
    classes         K names, by label: the data's folders (for ImageNet the wnids)
    labels          K names for people
    preprocessing   resize_size, image_size, interpolation, mean, std (of pixels 0-1), as in evaluation
    weights         which weights these are: "trained", "ema", "swa", "schedule_free", ...
    step            optimizer updates, or null
    run             the run's name, or null
    history         the run's epochs, with figures and protocols, as in a checkpoint
    config          the run's whole configuration, without secrets: what src rebuilds the model from
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from src.config import ConfigError, Problem
from src.models.weights import read_state_dict

FORMAT, VERSION = "imagenet-trainer", 1
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


class ModelFolder(NamedTuple):
    """What stands in a folder: the description (see above), and the state dict on the CPU."""

    description: dict[str, Any]
    state_dict: Mapping[str, Tensor]


def is_model_folder(path: Path) -> bool:
    """Return whether a folder says that it is one of ours. Never raises for odd content."""
    try:
        found = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("format") == FORMAT


def read_model_folder(path: Path) -> ModelFolder:
    """Read a folder. Runs no code from it.

    Raises:
        ConfigError: naming what is missing or damaged.
    """
    try:
        description = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, f"its {CONFIG_FILE} cannot be read ({error}). Export the model again.") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise _unreadable(path, f"its {CONFIG_FILE} was not written by src.export.")
    if description.get("format_version") != VERSION:
        fix = f"is of format version {description.get('format_version')!r}, not {VERSION}. Use the version that wrote it."
        raise _unreadable(path, fix)
    return ModelFolder(description, read_state_dict(path / WEIGHTS_FILE))


def _unreadable(path: Path, fix: str) -> ConfigError:
    return ConfigError("the checkpoint", [Problem("checkpoint", str(path), fix)])
