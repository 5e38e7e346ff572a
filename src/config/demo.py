"""What `python -m src.demo` is asked for. Its defaults stand in conf/demo.yaml."""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from src.config.door import load_keys
from src.config.errors import Problem
from src.config.fields import Count, Flag, Strict, Text

Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
Megapixels = Annotated[int, Field(strict=True, ge=1, le=170)]  # Pillow itself refuses 179 and more
Megabytes = Annotated[int, Field(strict=True, ge=1, le=4096)]
_AS_TYPED = ("checkpoint", "title", "examples", "space")


class DemoConfig(Strict):
    """How a model is shown. See conf/demo.yaml for each key's meaning and default."""

    checkpoint: Text | None
    weights: Literal["evaluated", "trained"]
    title: Text | None
    examples: Text
    port: Literal["auto"] | Port
    listen: Flag
    max_upload_mb: Megabytes
    max_megapixels: Megapixels
    at_once: Annotated[Count, Field(le=64)]
    queue_size: Count
    keep_seconds: Annotated[Count, Field(le=3600)]
    keep_mb: Megabytes
    max_connections: Annotated[Count, Field(ge=16)]
    space: Text | None


class DemoOrder(NamedTuple):
    """What to show, and what replaces the stored configuration."""

    demo: DemoConfig
    checkpoint: str
    overrides: list[str]


def load_demo(overrides: Sequence[str]) -> DemoOrder:
    """Validate the demo's keys; what is not its own belongs to the model.

    Raises:
        ConfigError: with every problem at once.
    """
    last = [text for text in overrides if text.startswith("checkpoint=")][-1:]
    missing = Problem("checkpoint", None, "must be given: checkpoint=runs/<name>, a .ckpt, or an exported folder.")
    found = [missing] if last in ([], ["checkpoint=null"]) else []
    demo, rest = load_keys(DemoConfig, "demo.yaml", overrides, as_typed=_AS_TYPED, others=True, found=found, check=_do_not_fit)
    assert demo.checkpoint is not None
    return DemoOrder(demo, demo.checkpoint, rest)


def _do_not_fit(demo: DemoConfig) -> list[Problem]:
    if demo.keep_mb >= demo.max_upload_mb:
        return []
    return [Problem("keep_mb", demo.keep_mb, f"must be at least max_upload_mb={demo.max_upload_mb}.")]
