"""The overrides a user types, rewritten so that Hydra takes every one and the schema judges them all."""

import itertools
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from src.config.errors import Problem, did_you_mean
from src.config.problems import choice_key
from src.config.schema import Config
from src.config.torchvision_models import CLASSIFIERS

RUNS_CODE = "${...:...} would read the environment or run code. Only another key's value can be had: ${data.path}."
CONF_DIR = Path(__file__).resolve().parents[2] / "conf"


@cache
def groups() -> dict[str, tuple[str, ...]]:
    """Return every Hydra group of conf/ with its choices."""
    return {folder.name: _choices_in(folder) for folder in sorted(CONF_DIR.iterdir()) if folder.is_dir()}


def rewrite(texts: Sequence[str], config_dir: Path | None) -> tuple[list[str], list[Problem]]:
    """Return the overrides as Hydra shall see them, and what is wrong with the others.

    A group's choice stays a choice; every value becomes `++key=value`, for Hydra would stop at the first unknown key.
    """
    rewritten: list[str] = []
    problems: list[Problem] = []
    for text in texts:
        override = _parse(text)
        problem = override if isinstance(override, Problem) else _refusal(override, config_dir)
        if problem is not None:
            problems.append(problem)
            continue
        assert isinstance(override, Override)
        key, value = override.key_or_group, override.get_value_element_as_str()
        if key not in groups():
            rewritten.append(f"++{key}={value}")
        elif value == "null":  # Hydra cannot choose nothing, so an earlier choice is forgotten
            rewritten = [other for other in rewritten if not other.startswith(f"{key}=")]
        elif key == "model" and value not in _choices(key, config_dir):
            package, _, arch = value.rpartition("/")
            rewritten += [f"model={package or 'torchvision'}", f"++model.arch={arch}"]
        else:
            rewritten.append(f"{key}={value}")
    return rewritten, problems


def parse_value(text: str) -> tuple[str, Any] | Problem:
    """Return (key, plain value) of one override, or what is wrong with it."""
    override = _parse(text)
    if isinstance(override, Problem):
        return override
    return _malformed(override) or (override.key_or_group, override.value())


def runs_code(text: str) -> bool:
    """Return whether the text asks for more than another key's value: ${oc.env:NAME} would put the environment into files."""
    return "${" in re.sub(r"\$\{[\w.]+\}", "", text)


def sweep_points(texts: Sequence[str]) -> tuple[list[list[str]], list[Problem]]:
    """Return the overrides of every point of a grid, the last key fastest as in Hydra, and what cannot be a grid."""
    choices: list[list[str]] = []
    problems: list[Problem] = []
    for text in texts:
        override = _parse(text)
        if isinstance(override, Problem):
            problems.append(override)
        elif not override.is_sweep_override():
            choices.append([text])
        elif not (override.is_discrete_sweep() and not isinstance(override.value(), Glob)):
            fix = "cannot be a grid. Write the values: a,b,c or range(start,stop)."
            problems.append(Problem(override.key_or_group, text.partition("=")[2], fix))
        else:
            choices.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
    return [list(point) for point in itertools.product(*choices)], problems


def _parse(text: str) -> Override | Problem:
    key, equals, value = text.partition("=")
    try:
        (override,) = OverridesParser.create().parse_overrides([text])
    except HydraException:
        if equals and key:
            return Problem(key, value, f"cannot be read because of a special character. Put it in quotes: '{key}=\"{value}\"'.")
        return Problem(text, None, "is not of the form key=value.")
    return override if key else Problem(text, None, "is not of the form key=value.")


def _malformed(override: Override) -> Problem | None:
    """Return what is wrong with one override's form."""
    key, text = override.key_or_group, str(override.input_line)
    if key.split(".")[0] == "hydra":
        return Problem(key, None, "Hydra's own outputs are off; runs_dir and run_name say where a run writes.")
    if runs_code(text):
        return Problem(key, text.partition("=")[2], RUNS_CODE)
    if override.is_delete():
        return Problem(text, None, "nothing can be deleted. Set a key to null where null is allowed.")
    if override.package is not None:
        return Problem(text, None, f"a group stands in its own place only. Type {key}={override.value()}.")
    if override.is_sweep_override():
        value = text.partition("=")[2]
        quoted = f" For one value with a comma: '{key}=\"{value}\"'." if "," in value and key not in groups() else ""
        return Problem(key, value, f"several values make a sweep: add --multirun.{quoted}")
    return None


def _refusal(override: Override, config_dir: Path | None) -> Problem | None:
    """Return what is wrong with one override in itself."""
    if (problem := _malformed(override)) is not None:
        return problem
    key = override.key_or_group
    value = override.get_value_element_as_str()
    if key in groups():
        return _unknown_choice(key, value, config_dir)
    group = key.partition(".")[0]
    if group in Config.model_fields and key == choice_key(group):
        known = _choices(group, config_dir)
        what = f"{group}={value}." if value in known else f"{group}=... ({', '.join(known)})."
        return Problem(key, value, f"comes with the group's choice. Type {what}")
    return None


def _unknown_choice(group: str, choice: str, config_dir: Path | None) -> Problem | None:
    choices = _choices(group, config_dir)
    classifiers = CLASSIFIERS if group == "model" else ()
    if choice in {*choices, *classifiers} or (choice == "null" and group not in Config.model_fields):
        return None
    if group == "model" and choice.startswith("timm/"):  # timm itself knows its names, when the model is built
        return None
    listed = ", ".join(choices) + (", any torchvision classifier, or timm/<any of timm's>" if classifiers else "")
    return Problem(group, choice, f"no such choice. There are: {listed}.{did_you_mean(choice, [*choices, *classifiers])}")


def _choices(group: str, config_dir: Path | None) -> tuple[str, ...]:
    own = _choices_in(config_dir / group) if config_dir is not None else ()
    return tuple(sorted({*groups()[group], *own}))


def _choices_in(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in folder.glob("*.yaml") if not file.stem.startswith("_")))
