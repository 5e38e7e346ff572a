"""What `python -m src.prepare` is asked for. Its defaults stand in conf/prepare.yaml."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from src.config.door import load_keys
from src.config.fields import Count, Flag, InsideUnit, Seed, Strict, Text

LayoutName = Literal[
    "auto", "official", "folders", "kaggle", "torrent", "huggingface", "imagefolder", "cifar10", "imagenette", "fashion_mnist"
]
Stage = Literal["fetch", "plan", "extract", "arrange", "index", "verify"]
Origin = Literal["torrent", "kaggle", "huggingface", "s3"]
# Texts, taken as they are typed: a folder may be called 2012 or a,b, a magnet link holds = and &, and off is no false.
_AS_TYPED = ("source", "target", "report", "checksum", "origin")


def _without_quotes(value: object) -> object:
    quoted = isinstance(value, str) and len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted and isinstance(value, str) else value


Typed = Annotated[Text, BeforeValidator(_without_quotes)]
Level = Annotated[int, Field(strict=True, ge=0, le=3)]


class PrepareConfig(Strict):
    """How a data set is made ready. See conf/prepare.yaml for each key's meaning and default."""

    source: Typed | None
    target: Typed | None
    layout: LayoutName
    link: Literal["auto", "hard", "copy"]
    checksum: Typed
    val_fraction: InsideUnit | None
    split_seed: Seed
    until: Stage
    level: Level
    expect: Literal["auto", "imagenet", "any"]
    report: Typed | None
    delete_source: Flag
    restart: Flag
    dry_run: Flag
    workers: Literal["auto"] | Count
    fetch: Origin | None
    origin: Typed | None


def load_prepare(overrides: Sequence[str]) -> PrepareConfig:
    """Validate the keys of conf/prepare.yaml.

    Raises:
        ConfigError: with every problem at once.
    """
    config, _ = load_keys(PrepareConfig, "prepare.yaml", overrides, as_typed=_AS_TYPED)
    return config
