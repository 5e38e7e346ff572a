"""What `python -m src.ffcv_writer` is asked for. Its defaults stand in conf/ffcv_writer.yaml."""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from src.config.compose import load
from src.config.data import DataConfig
from src.config.door import STAGE, load_keys
from src.config.errors import ConfigError, Problem
from src.config.fields import Count, Flag, PositiveFraction, Strict, Text


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
    of_data = [text for text in overrides if text.lstrip("+").partition("=")[0].partition(".")[0] == "data"]
    own = [text for text in overrides if text not in of_data]
    problems: list[Problem] = []
    writer = data = None
    try:
        writer, _ = load_keys(WriterConfig, "ffcv_writer.yaml", own, besides=("data=... and data.<key>=...",))
    except ConfigError as error:
        problems += error.problems
    try:
        data = load(["data=imagefolder", "batch_size=1", *of_data]).data  # a subset may be smaller than the trainer's batch
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(STAGE, problems)
    assert writer is not None and data is not None
    return WriterOrder(writer, data)
