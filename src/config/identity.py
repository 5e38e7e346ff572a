"""Which run a configuration is: its name, its stored form, and whether another configuration may continue it."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Set
from functools import cache
from pathlib import Path
from typing import Any

from src.config.data import EXACT_ENGINES
from src.config.model import TimmModel
from src.config.problems import parts_of
from src.config.schema import Config

_HOW_NOT_WHAT = {
    "run_name",
    "runs_dir",
    "resume",
    "dry_run",
    "profile_steps",
    "target_hours",
    "estimate_seconds",
    "price_per_hour",
    "price_currency",
    "track",
    "data.workers",
    "data.prefetch",
    "data.cache_dir",
    "data.copy_to",
    "data.in_memory",
}

# The same images in the same steps, cut otherwise: what lets a run go on for which the memory did not suffice.
CUT_OTHERWISE = frozenset({"max_local_batch_size", "eval_batch_size"})


def run_name(config: Config) -> str:
    """Return the configured name, or `<data>-<model>-<optim>-s<seed>-<8 hex of the configuration>`.

    The same command has the same name, a changed one another.
    """
    if config.run_name is not None:
        return config.run_name
    flat = {key: _meaning(key, value) for key, value in flatten(config) if not _under(key, _HOW_NOT_WHAT)}
    digest = hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()[:8]
    return f"{config.data.name}-{model_name(config)}-{config.optim.name}-s{config.seed}-{digest}"


def run_dir(config: Config) -> Path:
    """Return where the run writes: `<runs_dir>/<run_name>`."""
    return Path(config.runs_dir).expanduser() / run_name(config)


def model_name(config: Config) -> str:
    """Return the model's own name: `resnet50`, `timm_resnet50d`, `small_resnet`, `custom`."""
    name = str(getattr(config.model, "arch", config.model.name))
    return f"timm_{name}" if isinstance(config.model, TimmModel) else name


def differences(config: Config, stored: dict[str, Any]) -> list[tuple[str, object, object]]:
    """Return (key, stored value, value now) wherever the two could compute something else.

    Workers, logging, tracking and paths are bookkeeping and may differ.
    """
    now, before = dict(flatten(config)), dict(_flat(stored, ""))
    keys = [key for key in dict.fromkeys([*before, *now]) if not _under(key, _bookkeeping())]
    changed = [key for key in keys if _meaning(key, before.get(key)) != _meaning(key, now.get(key))]
    return [(key, before.get(key), now.get(key)) for key in changed]


def computed(config: Config) -> dict[str, object]:
    """Return every leaf that can change what is computed, by its dotted key: no paths, no logging."""
    return {key: value for key, value in flatten(config) if not _under(key, _bookkeeping())}


def computed_in(stored: Mapping[str, Any]) -> dict[str, object]:
    """Return the same of a stored configuration, which another version may have written; engines of the same pixels are one."""
    return {key: _meaning(key, value) for key, value in _flat(dict(stored), "") if not _under(key, _bookkeeping())}


def flatten(config: Config) -> Iterator[tuple[str, object]]:
    """Yield every leaf as (dotted key, plain value)."""
    return _flat(config.model_dump(mode="json"), "")


def _flat(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _meaning(key: str, value: object) -> object:
    """Return what counts of a value: engines that make the same pixels are one."""
    return "exact" if key == "data.engine" and value in EXACT_ENGINES else value


def _under(key: str, roots: Set[str]) -> bool:
    return any(key == root or key.startswith(f"{root}.") for root in roots)


@cache
def _bookkeeping() -> frozenset[str]:
    return frozenset(
        path
        for path, field in parts_of(Config)
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("bookkeeping")
    )
