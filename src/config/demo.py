"""What `python -m src.demo` is asked for. Its defaults stand in conf/demo.yaml."""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from src.config.door import STAGE, load_keys
from src.config.errors import ConfigError, Problem
from src.config.fields import Count, Flag, Strict, Text

Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
Megapixels = Annotated[int, Field(strict=True, ge=1, le=170)]  # Pillow itself refuses 179 and more
Megabytes = Annotated[int, Field(strict=True, ge=1, le=4096)]


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
    demo: DemoConfig | None = None
    rest: list[str] = []
    problems: list[Problem] = []
    try:
        demo, rest = load_keys(
            DemoConfig, "demo.yaml", overrides, as_typed=("checkpoint", "title", "examples", "space"), others=True
        )
    except ConfigError as error:
        problems += error.problems
    if demo is None:
        missing = not any(text.startswith("checkpoint=") for text in overrides)
    else:
        missing = demo.checkpoint is None
        if demo.keep_mb < demo.max_upload_mb:
            problems.append(Problem("keep_mb", demo.keep_mb, f"must be at least max_upload_mb={demo.max_upload_mb}."))
    if missing:
        problems.append(Problem("checkpoint", None, "must be given: checkpoint=runs/<name>, a .ckpt, or an exported folder."))
    if problems:
        raise ConfigError(STAGE, problems)
    assert demo is not None and demo.checkpoint is not None
    return DemoOrder(demo, demo.checkpoint, rest)
