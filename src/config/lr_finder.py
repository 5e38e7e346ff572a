"""What `python -m src.lr_finder` is asked for. Its defaults stand in conf/lr_finder.yaml."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, Field

from src.config.compose import load
from src.config.door import STAGE, load_keys
from src.config.errors import ConfigError, Problem, nearest
from src.config.fields import Count, CountOrZero, Positive, PositiveFraction, Strict
from src.config.overrides import groups
from src.config.schema import Config

LEAST_POINTS = 10  # between what is skipped at both ends: fewer say nothing about where a curve is steepest


def _listed(value: object) -> object:
    if value == []:
        raise ValueError("must have at least one value.")
    return value if isinstance(value, list) else [value]


Rates = Annotated[tuple[Positive, ...], BeforeValidator(_listed)]


class FinderConfig(Strict):
    """How the rate is searched. See conf/lr_finder.yaml for each key's meaning and default."""

    start_lr: Rates
    end_lr: Rates
    num_iter: Annotated[tuple[Count, ...], BeforeValidator(_listed)]
    smoothing: PositiveFraction
    diverge: Annotated[Positive, Field(gt=1)]
    window_decades: Positive
    skip_first: CountOrZero
    skip_last: CountOrZero


class LrRange(NamedTuple):
    """One range: the rate grows from start_lr to end_lr, by the same factor each of num_iter steps."""

    start_lr: float
    end_lr: float
    num_iter: int


class FinderOrder(NamedTuple):
    """What to search, and for which training."""

    finder: FinderConfig
    ranges: tuple[LrRange, ...]
    config: Config


def load_finder(overrides: Sequence[str], *, config_dir: Path | None = None) -> FinderOrder:
    """Validate the finder's keys, and all others as the trainer does.

    Args:
        overrides: `key=value` of conf/lr_finder.yaml, where the first three take lists (`start_lr=1e-7,1e-5`), and the trainer's.
        config_dir: a folder of the user's own groups, searched beside conf/.

    Raises:
        ConfigError: with every problem at once.
    """
    own, of_trainer, problems = _told_apart(overrides)
    finder = config = None
    try:
        finder, _ = load_keys(FinderConfig, "lr_finder.yaml", own, found=problems, check=_range_problems)
    except ConfigError as error:
        problems = list(error.problems)
    try:
        config = load(of_trainer, config_dir=config_dir)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(STAGE, problems)
    assert finder is not None and config is not None
    return FinderOrder(finder, _ranges(finder), config)


def _told_apart(overrides: Sequence[str]) -> tuple[list[str], list[str], list[Problem]]:
    """Return the finder's keys, with a,b,c as a list; the trainer's; and those that are nearest to one of the finder's."""
    own: list[str] = []
    of_trainer: list[str] = []
    problems = []
    for text in overrides:
        key, equals, value = text.partition("=")
        bare = key.lstrip("+")
        if bare in FinderConfig.model_fields:
            own.append(f"{bare}=[{value}]" if "," in value and not value.startswith("[") else f"{bare}{equals}{value}")
            continue
        known = {*Config.model_fields, *groups()}
        near = None if bare in known else nearest(bare, [*FinderConfig.model_fields, *known])
        if near in FinderConfig.model_fields:
            problems.append(Problem(bare, value, f"no such key. Did you mean {near}?"))
        else:
            of_trainer.append(text)
    return own, of_trainer, problems


def _columns(finder: FinderConfig) -> dict[str, tuple[float, ...]]:
    return {"start_lr": finder.start_lr, "end_lr": finder.end_lr, "num_iter": finder.num_iter}


def _ranges(finder: FinderConfig) -> tuple[LrRange, ...]:
    """Pair the lists; one value serves for all ranges."""
    count = max(len(values) for values in _columns(finder).values())
    starts = finder.start_lr * (count // len(finder.start_lr))
    ends = finder.end_lr * (count // len(finder.end_lr))
    steps = finder.num_iter * (count // len(finder.num_iter))
    return tuple(LrRange(start, end, num) for start, end, num in zip(starts, ends, steps, strict=True))


def _range_problems(finder: FinderConfig) -> list[Problem]:
    """Return what is wrong with the ranges, all fields being right by themselves."""
    lengths = {key: len(values) for key, values in _columns(finder).items()}
    count = max(lengths.values())
    problems = [
        Problem(key, list(_columns(finder)[key]), f"has {length} values where another has {count}. Give {count}, or one for all.")
        for key, length in lengths.items()
        if length not in (1, count)
    ]
    if problems:
        return problems
    least = finder.skip_first + finder.skip_last + LEAST_POINTS
    for start, end, num in _ranges(finder):
        if end <= start:
            problems.append(Problem("end_lr", end, f"must be above start_lr={start:g}."))
        if num < least:
            fix = f"too few steps: skip_first={finder.skip_first} and skip_last={finder.skip_last} must leave {LEAST_POINTS}. "
            problems.append(Problem("num_iter", num, f"{fix}Set num_iter={least} or more, or skip less."))
    return problems
