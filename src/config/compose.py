"""Hydra composes, pydantic validates: the door. Every override is seen by the schema, so every mistake is reported at once."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from src.config.errors import ConfigError, Problem
from src.config.exchange import exchange
from src.config.overrides import CONF_DIR, RUNS_CODE, groups, rewrite, runs_code, sweep_points
from src.config.problems import choice_key, problems_of
from src.config.schema import Config

STAGE = "the configuration"
# Hydra resolves what stands in a defaults list by itself, before the composed tree can be looked at.
OmegaConf.clear_resolver("oc.env")


class Composed(NamedTuple):
    """Hydra's result.

    Attributes:
        tree: plain containers, all references resolved.
        copies: dotted key to the key that it repeats (`eval_image_size: ${data.image_size}`).
    """

    tree: dict[str, Any]
    copies: dict[str, str]


def load(overrides: Sequence[str], *, config_dir: Path | None = None) -> Config:
    """Compose conf/ with the overrides and validate the result.

    Args:
        overrides: as typed on the command line, such as `data=synthetic`, `optim.peak_lr=0.2`.
        config_dir: a folder of the user's own groups, searched beside conf/.

    Raises:
        ConfigError: with every problem at once.
    """
    kept, problems = rewrite(overrides, config_dir)
    config: Config | None = None
    # Pydantic checks a rule across fields only once every field is right. So what caused a problem is left away, and the rest is
    # validated again, until nothing new is found.
    while True:
        composed, kept, found = _compose(kept, config_dir)
        problems += found
        if composed is None:
            break
        config, found = validate(composed.tree)
        wrong = _keys_in_doubt(problems)
        told = {problem.path for problem in found}
        problems += [
            _with_origin(problem, kept, config_dir)
            for problem in found
            if not _rests_on(problem, wrong) and composed.copies.get(problem.path) not in told | wrong
        ]
        rest = [text for text in kept if not _is_about(text, told)]
        if config is not None or len(rest) == len(kept):
            break
        kept = rest
    if problems:
        raise ConfigError(STAGE, problems)
    assert config is not None
    return config


def compose_tree(overrides: Sequence[str], *, config_dir: Path | None = None) -> dict[str, Any]:
    """Return the composed configuration as plain containers, unvalidated (for `--cfg job`).

    Raises:
        ConfigError: with every override that cannot be composed.
    """
    kept, problems = rewrite(overrides, config_dir)
    composed, _, found = _compose(kept, config_dir)
    if problems or found or composed is None:
        raise ConfigError(STAGE, problems + found)
    return composed.tree


def expand_sweep(overrides: Sequence[str], *, config_dir: Path | None = None) -> list[list[str]]:
    """Return one list of overrides for every point of a `--multirun` grid, in Hydra's order.

    Raises:
        ConfigError: with every problem of every point.
    """
    points, problems = sweep_points(overrides)
    for point in points:
        try:
            load(point, config_dir=config_dir)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(STAGE, problems)
    return points


def _compose(overrides: list[str], config_dir: Path | None) -> tuple[Composed | None, list[str], list[Problem]]:
    """Compose what can be composed: each override that Hydra refuses is left away and told."""
    composed = _try(overrides, config_dir)
    if isinstance(composed, Composed):
        return composed, overrides, []
    latest = _try([], config_dir)
    if isinstance(latest, str):
        return None, [], [Problem("conf", None, latest)]
    kept: list[str] = []
    problems = []
    for text in overrides:
        outcome = _try([*kept, text], config_dir)
        if isinstance(outcome, str):
            key, _, value = text.lstrip("+").partition("=")
            problems.append(Problem(key, re.sub(r"\\(.)", r"\1", value), outcome))
        else:
            kept.append(text)
            latest = outcome
    return latest, kept, problems


def _try(overrides: list[str], config_dir: Path | None) -> Composed | str:
    """Return Hydra's result, or why there is none."""
    try:
        tree = _hydras(overrides, config_dir)
        exchange(tree, overrides, lambda others: _hydras(others, config_dir))
        asked = OmegaConf.to_container(tree, resolve=False)
        for key, text in _texts(asked):
            if runs_code(text):
                return f"{key}: {RUNS_CODE}"
        copies = dict(_references(asked))
        OmegaConf.resolve(tree)
        plain = OmegaConf.to_container(tree, throw_on_missing=False)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        return _reason(error)
    assert isinstance(plain, dict)
    return Composed({str(key): value for key, value in plain.items()}, copies)


def _hydras(overrides: list[str], config_dir: Path | None) -> DictConfig:
    search = [f"hydra.searchpath=['file://{config_dir.resolve()}']"] if config_dir is not None else []
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        return compose("config", overrides=[*search, *overrides])


def _reason(error: Exception) -> str:
    """Return Hydra's message on one line, without its search path and its internals."""
    text = str(error)
    if "Error merging override" in text:
        return "is not of the shape that the key has in conf/ (see --cfg job)."
    if isinstance(error, yaml.YAMLError):
        text = f"its file is not YAML: {text}"
    text = re.split(r"\n(?:Config search path:|\s+full_key:)", text)[0]
    return " ".join(line.strip() for line in text.splitlines() if line.strip()).rstrip(".") + "."


def _texts(tree: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, text) for every text at any depth."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _texts(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(tree, list):
        for value in tree:
            yield from _texts(value, prefix)
    elif isinstance(tree, str):
        yield prefix, tree


def _references(tree: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _references(value, f"{prefix}{key}.")
        elif isinstance(value, str) and (match := re.fullmatch(r"\$\{([\w.]+)\}", value)):
            yield f"{prefix}{key}", match[1]


def validate(tree: dict[str, Any]) -> tuple[Config | None, list[Problem]]:
    """Return the tree as a Config, or None, and all that is wrong with it."""
    # A file of experiment/ or debug/ speaks of the whole tree, and stands beside it where it does not say so.
    stray = [group for group in tree if group in groups() and group not in Config.model_fields]
    problems = [Problem(group, None, "the chosen file must begin with the line: # @package _global_") for group in stray]
    try:
        return Config.model_validate({key: value for key, value in tree.items() if key not in stray}), problems
    except ValidationError as error:
        return None, problems + problems_of(error)


def _with_origin(problem: Problem, overrides: list[str], config_dir: Path | None) -> Problem:
    """Say which experiment or debug file a problem comes from, if nobody typed the value."""
    if not any(_is_about(text, {problem.path}) for text in overrides):
        for text in overrides:
            if text.partition("=")[0] in groups().keys() - Config.model_fields.keys():
                without = _try([other for other in overrides if other != text], config_dir)
                if isinstance(without, Composed) and problem.path not in {other.path for other in validate(without.tree)[1]}:
                    return problem._replace(fix=f"{problem.fix} This comes with {text}.")
    return problem


def _keys_in_doubt(problems: list[Problem]) -> set[str]:
    paths = {problem.path for problem in problems}
    return paths | {choice_key(path) for path in paths & groups().keys()}


def _rests_on(problem: Problem, wrong: set[str]) -> bool:
    """Return whether the problem is about, or names, a key that was left away: it would be told of a value that nobody typed."""
    return problem.path in wrong or any(re.search(rf"(?<![\w.]){re.escape(key)}=", problem.fix) for key in wrong)


def _is_about(override: str, paths: set[str]) -> bool:
    key = override.lstrip("+").partition("=")[0]
    return any(path == key or path.startswith(f"{key}.") for path in paths) and key not in groups()
