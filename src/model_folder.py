"""A trained model as a folder that others can use: `model.safetensors`, and `config.json` with all that the weights do not tell.

config.json holds
    format          "imagenet-trainer"
    format_version  1
    architecture    the name that timm builds it by, where timm's model was seen to give the same logits from these weights, such as
                    "resnet50"; else "torchvision/vit_b_16", "timm/...", "small_resnet", "custom", which timm does not know
    num_classes     K
    classes         K names, by label: the data's folders (for ImageNet the wnids)
    labels          K names for people
    label_names     the classes, and label_descriptions their names for people: what timm reads
    input           the one input of every format: name, dtype, shape
    output          the one output: name, dtype, shape
    preprocessing   resize_size, image_size, interpolation, mean, std (of pixels 0-1), as in evaluation
    pretrained_cfg  the preprocessing in timm's words
    weights         which weights these are: "trained", "ema", "swa", "schedule_free", ...
    step            optimizer updates, or null
    run             the run's name, or null
    history         the run's epochs, with figures and protocols, as in a checkpoint
    provenance      commit, command, versions, device, world size and start of the training, or null
    config          the run's whole configuration, without secrets: what src rebuilds the model from
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.config import ConfigError, Problem
from src.files import write_atomically
from src.models.pruned import METADATA_KEY, Kind
from src.models.weights import read_state_dict

FORMAT, VERSION = "imagenet-trainer", 1
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
_NEEDED = {"config": dict, "classes": list, "weights": str, "history": list}  # what src.trained reads, and its types


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


def read_description(path: Path) -> dict[str, Any]:
    """Read a folder's config.json.

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
    damaged = [key for key, kind in _NEEDED.items() if not isinstance(description.get(key), kind)]
    damaged += [key for key in ("step", "run") if key not in description]
    if "classes" not in damaged and not all(isinstance(name, str) for name in description["classes"]):
        damaged.append("classes")
    if damaged:
        raise _unreadable(path, f"its {CONFIG_FILE} lacks, or has damaged: {', '.join(damaged)}. Export the model again.")
    return description


def read_model_folder(path: Path) -> ModelFolder:
    """Read a folder. Runs no code from it.

    Raises:
        ConfigError: naming what is missing or damaged.
    """
    description = read_description(path)
    if not (path / WEIGHTS_FILE).is_file():
        fix = f"has no {WEIGHTS_FILE}. Export the model again, with safetensors among its formats."
        raise _unreadable(path, fix)
    return ModelFolder(description, read_state_dict(path / WEIGHTS_FILE))


def write_description(path: Path, description: Mapping[str, Any]) -> None:
    """Write config.json, with what its readers go by."""
    content = {"format": FORMAT, "format_version": VERSION, **description}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path / CONFIG_FILE, f"{text}\n".encode())


def write_weights(path: Path, state_dict: Mapping[str, Tensor], *, pruned: Kind | None = None) -> None:
    """Write model.safetensors, and read it back.

    Args:
        path: the folder.
        state_dict: by name, of any layout; tensors that share memory are written twice.
        pruned: how; the file says it, and training goes on from it accordingly.

    Raises:
        OSError: if what was read back is not the same, bit for bit.
    """
    from safetensors.torch import save

    # A copy each: safetensors refuses tensors that share memory, and those that are not laid out plainly.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state_dict.items()}
    write_atomically(
        path / WEIGHTS_FILE, save(plain, metadata={"format": "pt"} | ({} if pruned is None else {METADATA_KEY: pruned}))
    )
    found = read_state_dict(path / WEIGHTS_FILE)
    if found.keys() != plain.keys() or not all(_same_bits(found[name], plain[name]) for name in plain):
        raise OSError(f"{path / WEIGHTS_FILE} does not hold what was written: is the disk in order?")


def write_model_folder(path: Path, description: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> None:
    """Write both files into an existing folder. See the top of this file for what the description holds."""
    write_weights(path, state_dict)
    write_description(path, description)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8))


def _unreadable(path: Path, fix: str) -> ConfigError:
    return ConfigError("the checkpoint", [Problem("checkpoint", str(path), fix)])
