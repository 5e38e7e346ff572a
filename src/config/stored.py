"""A configuration that was stored with a run, with some of its values replaced."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from src.config.errors import ConfigError, Problem
from src.config.later_keys import with_later_keys
from src.config.overrides import parse_value
from src.config.problems import problems_of
from src.config.schema import Config


def load_stored(stored: dict[str, Any], overrides: Sequence[str]) -> Config:
    """Validate a stored configuration with values replaced; a new data.path takes the folders below the old one along.

    Args:
        stored: plain containers, as in a checkpoint.
        overrides: values only, such as `data.path=/elsewhere`; groups cannot be exchanged as a whole.

    Raises:
        ConfigError: with every problem at once.
    """
    tree = OmegaConf.create(stored)
    problems = []
    for text in overrides:
        parsed = parse_value(text)
        if isinstance(parsed, Problem):
            problems.append(parsed)
            continue
        key, value = parsed
        if isinstance(stored.get(key), dict):
            problems.append(Problem(key, value, f"cannot be exchanged as a whole. Set its values: {key}.<key>=..."))
            continue
        if key == "data.path" and OmegaConf.select(tree, key) is not None:
            for folder in ("data.train_path", "data.val_path", "data.devkit_path"):
                if OmegaConf.select(tree, folder) is None:
                    continue
                moved = str(OmegaConf.select(tree, folder)).replace(str(OmegaConf.select(tree, key)), str(value), 1)
                OmegaConf.update(tree, folder, moved)
        try:
            OmegaConf.update(tree, key, value, force_add=True)
        except OmegaConfBaseException:
            problems.append(Problem(key, value, "is not of the shape that the key has in the stored configuration."))
    plain = OmegaConf.to_container(tree)
    assert isinstance(plain, dict)
    try:
        config = Config.model_validate(plain)
    except ValidationError:
        plain = with_later_keys(plain)  # perhaps only keys are missing that an older version did not know
    try:
        config = Config.model_validate(plain)
    except ValidationError as error:
        raise ConfigError("the configuration", [*problems, *problems_of(error)]) from error
    if problems:
        raise ConfigError("the configuration", problems)
    return config
