"""What `python -m src.ffcv_writer` is asked for. Its defaults stand in conf/ffcv_writer.yaml."""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import yaml
from pydantic import Field, ValidationError

from src.config.compose import load
from src.config.data import DataConfig
from src.config.errors import ConfigError, Problem, did_you_mean
from src.config.fields import Count, Flag, PositiveFraction, Strict, Text
from src.config.overrides import CONF_DIR, parse_value
from src.config.problems import problems_of

STAGE = "the command line"


class WriterConfig(Strict):
    """How a .beton is written. See conf/ffcv_writer.yaml for each key's meaning and default."""

    target: Text
    splits: Annotated[tuple[Literal["train", "val"], ...], Field(min_length=1, max_length=2)]
    max_resolution: Annotated[Count, Field(le=65_535)] | None
    jpeg_quality: Annotated[Count, Field(le=100)]
    write_mode: Literal["jpg", "raw", "proportion"]
    raw_fraction: PositiveFraction
    jpeg_bytes: Literal["reencode", "original"]
    on_bad: Literal["raise", "skip"]
    overwrite: Flag
    workers: Literal["auto"] | Count


class WriterOrder(NamedTuple):
    """What to write, and from where."""

    writer: WriterConfig
    data: DataConfig


def load_writer(overrides: Sequence[str]) -> WriterOrder:
    """Validate the writer's keys, and the data's as the trainer does.

    Args:
        overrides: `key=value` of conf/ffcv_writer.yaml, `data=<choice>`, `data.<key>=<value>`.

    Raises:
        ConfigError: with every problem at once.
    """
    tree = yaml.safe_load((CONF_DIR / "ffcv_writer.yaml").read_text())
    problems: list[Problem] = []
    of_data: list[str] = []
    for text in overrides:
        if text.lstrip("+").partition("=")[0].partition(".")[0] == "data":
            of_data.append(text)
            continue
        parsed = parse_value(text)
        if isinstance(parsed, Problem):
            problems.append(parsed)
        elif parsed[0] not in tree:
            fix = f"no such key. There are: {', '.join(tree)}, data=... and data.<key>=....{did_you_mean(parsed[0], tree)}"
            problems.append(Problem(*parsed, fix))
        else:
            tree[parsed[0]] = parsed[1]
    writer = data = None
    try:
        writer = WriterConfig.model_validate(tree)
    except ValidationError as error:
        problems += problems_of(error, path_of=lambda location: str(location[0]))
    try:
        data = load(["data=imagefolder", "batch_size=1", *of_data]).data  # a subset may be smaller than the trainer's batch
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(STAGE, problems)
    assert writer is not None and data is not None
    return WriterOrder(writer, data)
