"""What `python -m src.prepare` is asked for. Its defaults stand in conf/prepare.yaml."""

from collections.abc import Sequence
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError

from src.config.errors import ConfigError, Problem, did_you_mean
from src.config.fields import Count, Flag, InsideUnit, Seed, Strict, Text
from src.config.overrides import CONF_DIR, parse_value
from src.config.problems import problems_of

STAGE = "the command line"
LayoutName = Literal[
    "auto", "official", "folders", "kaggle", "torrent", "huggingface", "imagefolder", "cifar10", "imagenette", "fashion_mnist"
]
Stage = Literal["fetch", "plan", "extract", "arrange", "index", "verify"]
Origin = Literal["torrent", "kaggle", "huggingface", "s3"]
# Texts, taken as they are typed: a folder may be called 2012 or a,b, a magnet link holds = and &, and off is no false.
_AS_TYPED = ("source", "target", "report", "checksum", "origin")
Level = Annotated[int, Field(strict=True, ge=0, le=3)]


class PrepareConfig(Strict):
    """How a data set is made ready. See conf/prepare.yaml for each key's meaning and default."""

    source: Text | None
    target: Text | None
    layout: LayoutName
    link: Literal["auto", "hard", "copy"]
    checksum: Text
    val_fraction: InsideUnit | None
    split_seed: Seed
    until: Stage
    level: Level
    expect: Literal["auto", "imagenet", "any"]
    report: Text | None
    delete_source: Flag
    restart: Flag
    dry_run: Flag
    workers: Literal["auto"] | Count
    fetch: Origin | None
    origin: Text | None


def load_prepare(overrides: Sequence[str]) -> PrepareConfig:
    """Validate the keys of conf/prepare.yaml.

    Raises:
        ConfigError: with every problem at once.
    """
    tree = yaml.safe_load((CONF_DIR / "prepare.yaml").read_text())
    problems: list[Problem] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if key in _AS_TYPED and equals:
            tree[key] = None if value == "null" else _without_quotes(value)
            continue
        parsed = parse_value(text)
        if isinstance(parsed, Problem):
            problems.append(parsed)
        elif parsed[0] not in tree:
            problems.append(Problem(*parsed, f"no such key. There are: {', '.join(tree)}.{did_you_mean(parsed[0], tree)}"))
        else:
            tree[parsed[0]] = parsed[1]
    try:
        config = PrepareConfig.model_validate(tree)
    except ValidationError as error:
        problems += problems_of(error, path_of=lambda location: str(location[0]))
    if problems:
        raise ConfigError(STAGE, problems)
    return config


def _without_quotes(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
