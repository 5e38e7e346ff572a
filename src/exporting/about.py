"""What is known about a model that is exported: the content of config.json, from which the model card is written as well."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.config.identity import model_name
from src.config.model import TimmModel, TorchvisionModel
from src.config.secrets import hide_in_arguments, hide_in_tree
from src.model_folder import read_description
from src.trained import Trained, labels_of

_SAME = 1e-4  # of a logit: what two orders of the same additions may differ by
_TOLD = ("git_commit", "git_dirty", "python", "packages", "device", "world_size", "command", "started")


def describe(trained: Trained, model: nn.Module) -> dict[str, Any]:
    """Return what config.json holds (see src/model_folder.py), but its two first keys.

    Args:
        trained: with its classes known.
        model: as built for evaluation, on the CPU.
    """
    assert trained.classes is not None
    data, classes, labels = trained.config.data, list(trained.classes), list(labels_of(trained.classes))
    size = data.eval_image_size
    architecture, timm_words = architecture_of(trained, model)
    return {
        "architecture": architecture,
        "num_classes": len(classes),
        "classes": classes,
        "labels": labels,
        "label_names": classes,
        "label_descriptions": dict(zip(classes, labels, strict=True)),
        "input": {"name": "images", "dtype": "float32", "shape": ["batch", 3, size, size]},
        "output": {"name": "logits", "dtype": "float32", "shape": ["batch", len(classes)]},
        "preprocessing": {
            "resize_size": data.resize_size,
            "image_size": size,
            "interpolation": data.eval_interpolation,
            "mean": list(data.mean),
            "std": list(data.std),
        },
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "interpolation": data.eval_interpolation,
            "crop_pct": _crop_share(size, data.resize_size),
            "crop_mode": "center",
            "mean": list(data.mean),
            "std": list(data.std),
            "num_classes": len(classes),
            **timm_words,
        },
        "weights": trained.weights,
        "step": trained.step,
        "run": trained.run,
        "history": list(trained.history),
        "provenance": provenance(trained),
        "config": hide_in_tree(trained.config.model_dump(mode="json")),
    }


def architecture_of(trained: Trained, model: nn.Module) -> tuple[str, dict[str, Any]]:
    """Return the name that timm builds the very same model by, and what timm says of it; else a name that timm does not know.

    torchvision's ResNets are timm's, weight by weight; other names exist in both and mean different layers. So timm's model is
    built, takes the weights, and must give the same logits.
    """
    config = trained.config.model
    name = str(getattr(config, "arch", config.name))
    prefix = "timm/" if isinstance(config, TimmModel) else "torchvision/" if isinstance(config, TorchvisionModel) else ""
    if not prefix or config.blur_pool != "none":
        return f"{prefix}{name}", {}
    import timm  # three seconds

    if not timm.is_model(name):
        return f"{prefix}{name}", {}
    size = trained.config.data.eval_image_size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert trained.classes is not None
    try:
        other = timm.create_model(name, pretrained=False, num_classes=len(trained.classes)).eval()
        other.load_state_dict({key: tensor.float() for key, tensor in model.state_dict().items()})
        with torch.no_grad():
            same = _close(other(images), model(images.to(next(model.parameters()).dtype)).float())
    except (RuntimeError, TypeError, AssertionError):  # other names, shapes or image sizes: another model
        same = False
    if not same:
        return f"{prefix}{name}", {}
    said = other.pretrained_cfg
    known = {key: said[key] for key in ("classifier", "first_conv", "fixed_input_size") if said.get(key) is not None}
    return name, json.loads(json.dumps(known))


def provenance(trained: Trained) -> dict[str, Any] | None:
    """Return how it was trained, as the run's folder or an earlier export tells, without secrets; None where nothing does."""
    if trained.kind == "folder":
        told = read_description(trained.path).get("provenance")
        return told if isinstance(told, dict) else None
    if trained.kind != "checkpoint":
        return None
    try:
        meta = json.loads((trained.path.resolve().parents[1] / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, IndexError):
        return None
    if not isinstance(meta, dict):
        return None
    told = {key: meta[key] for key in _TOLD if key in meta}
    if isinstance(told.get("command"), list):
        told["command"] = hide_in_arguments([str(word) for word in told["command"]])
    return dict(hide_in_tree(told))


def recorded(description: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the epoch in which the run evaluated these very weights, or None."""
    for entry in reversed(description["history"]):
        if entry.get("step") != description["step"]:
            continue
        if entry.get("protocol", {}).get("weights") == description["weights"]:
            return dict(entry)
        if entry.get("trained_protocol", {}).get("weights") == description["weights"]:
            figures = {f"val/{name}": entry[f"val/trained_{name}"] for name in ("loss", "acc1", "acc5")}
            return {**entry, **figures, "protocol": entry["trained_protocol"]}
    return None


def title_of(trained: Trained) -> str:
    """Return what the model is called: the run's name, or the architecture's and the file's."""
    return trained.run or f"{model_name(trained.config)}-{Path(trained.path).stem}"


def _crop_share(image_size: int, resize_size: int) -> float:
    """Return timm's crop_pct, from which timm gets floor(image_size / crop_pct) pixels before the crop: resize_size."""
    share = image_size / resize_size
    while math.floor(image_size / share) < resize_size:
        share = math.nextafter(share, 0)
    return share


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= _SAME * max(1.0, float(other.abs().max())))
