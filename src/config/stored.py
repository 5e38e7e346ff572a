"""A configuration that was stored with a run, with some of its values replaced."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from src.config.compose import load
from src.config.errors import ConfigError, Problem
from src.config.later_keys import with_later_keys
from src.config.overrides import parse_value
from src.config.problems import problems_of
from src.config.schema import Config

# What belongs to the run and not to where its images lie: it stays when another data=... is typed.
_OF_THE_RUN = (
    *("image_size", "ramp_from_size", "ramp_from_epoch", "ramp_to_epoch", "ramp_multiple", "eval_image_size", "resize_size"),
    *("interpolation", "eval_interpolation", "mean", "std", "subset", "val_subset"),
)


def load_stored(stored: dict[str, Any], overrides: Sequence[str]) -> Config:
    """Validate a stored configuration with values replaced; a new data.path takes the folders below the old one along.

    Args:
        stored: plain containers, as in a checkpoint.
        overrides: values such as `data.path=/elsewhere`, and `data=tar`: another source or loader, by which images are prepared as
            the run has it (sizes, interpolation, mean and std, subset). Other groups cannot be exchanged as a whole.

    Raises:
        ConfigError: with every problem at once.
    """
    problems: list[Problem] = []
    choices = [text for text in overrides if text.partition("=")[0] == "data"]
    if choices:
        own = [text for text in overrides if text.lstrip("+").startswith("data.")]
        overrides = [text for text in overrides if text not in (*own, *choices)]
        stored, problems = _with_data(stored, choices, own)
    tree = OmegaConf.create(stored)
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


def _with_data(stored: dict[str, Any], choices: Sequence[str], own: Sequence[str]) -> tuple[dict[str, Any], list[Problem]]:
    """Return the stored configuration with another choice of data, of which the run's own keys stay unless they were typed."""
    typed = {text.partition("=")[0].lstrip("+").removeprefix("data.") for text in own}
    kept = [key for key in _OF_THE_RUN if key not in typed and key in stored["data"]]
    values = [f"data.{key}={_as_override(stored['data'][key])}" for key in kept]
    # The rules between data and other groups are judged with the stored ones, later.
    try:
        data = load([*choices, *values, *own, "batch_size=1"]).data.model_dump(mode="json")
    except ConfigError as error:
        return stored, list(error.problems)
    return {**stored, "data": data}, []


def _as_override(value: object) -> str:
    return "null" if value is None else f"[{','.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)
