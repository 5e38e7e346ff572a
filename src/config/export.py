"""What `python -m src.export` is asked for. Its defaults stand in conf/export.yaml."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator

from src.config.door import load_keys
from src.config.errors import Problem
from src.config.fields import Count, CountOrZero, Flag, InsideUnit, NonNegative, Positive, Strict, Text

FormatName = Literal["safetensors", "torch_export", "onnx", "int8"]
_AS_TYPED = ("checkpoint", "target", "formats", "license")


def _listed(value: object) -> object:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if isinstance(names, list) and len(set(names)) < len(names):
        raise ValueError("names a format twice.")
    return names


class ExportKeys(Strict):
    """How a model is exported. See conf/export.yaml for each key's meaning and default."""

    checkpoint: Text | None
    target: Text | None
    formats: Annotated[tuple[FormatName, ...], BeforeValidator(_listed)]
    weights: Literal["evaluated", "trained"]
    overwrite: Flag
    check_images: Literal["all"] | CountOrZero
    max_difference: Positive
    license: Text
    latency: Flag
    calibration_images: Count
    prune: InsideUnit | None
    prune_kind: Literal["unstructured", "channels"]
    finetune_epochs: CountOrZero
    finetune_lr: Positive | None
    max_drop: NonNegative


def load_export(overrides: Sequence[str]) -> tuple[ExportKeys, list[str]]:
    """Validate the keys of conf/export.yaml.

    Returns:
        the keys, and what replaces values of the run's own configuration, such as data.path=...

    Raises:
        ConfigError: with every problem at once.
    """
    problems: list[Problem] = []
    if sum(text.startswith("checkpoint=") and text != "checkpoint=" for text in overrides) != 1:
        problems.append(Problem("checkpoint", None, "must be given once: checkpoint=<a run's folder, a .ckpt file, ...>."))
    return load_keys(ExportKeys, "export.yaml", overrides, as_typed=_AS_TYPED, others=True, found=problems)
