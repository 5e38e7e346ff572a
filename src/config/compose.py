"""Hydra composes, pydantic validates: the door. Every override is seen by the schema, so every mistake is reported at once."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from src.config.errors import ConfigError, Problem, did_you_mean
from src.config.problems import problems_of
from src.config.schema import Config
from src.config.torchvision_models import CLASSIFIERS

CONF_DIR = Path(__file__).resolve().parents[2] / "conf"
STAGE = "the configuration"


def load(overrides: Sequence[str], *, config_dir: Path | None = None) -> Config:
    """Compose conf/ with the overrides and validate the result.

    Args:
        overrides: as typed on the command line, such as `data=ffcv`, `optim.peak_lr=0.2`.
        config_dir: a folder of the user's own groups, searched beside conf/.

    Raises:
        ConfigError: with every problem at once.
    """
    parsed, problems = _parse(overrides, config_dir)
    tree, compose_problems = _compose(parsed, config_dir)
    problems += compose_problems
    if tree is not None:
        config, found = _validate(tree)
        problems += found
        if config is not None and not problems:
            return config
        if found:
            problems += _problems_behind(parsed, found, config_dir)
    raise ConfigError(STAGE, problems)


def load_stored(stored: dict[str, Any], overrides: Sequence[str]) -> Config:
    """Validate a configuration that was stored with a run, with some values replaced.

    A new data.path takes the folders below the old one along.

    Raises:
        ConfigError: with every problem at once.
    """
    tree = OmegaConf.create(stored)
    problems = []
    for text in overrides:
        try:
            (override,) = OverridesParser.create().parse_overrides([text])
            key, value = override.key_or_group, override.value()
        except HydraException:
            problems.append(Problem(text, None, "is not of the form key=value."))
            continue
        if key in groups():
            problems.append(
                Problem(key, value, f"a stored run's {key} cannot be exchanged as a whole. Set its values: {key}.<key>=...")
            )
            continue
        if key == "data.path":
            for folder in ("data.train_path", "data.val_path"):
                below = str(OmegaConf.select(tree, folder)).replace(str(OmegaConf.select(tree, "data.path")), str(value), 1)
                OmegaConf.update(tree, folder, below)
        OmegaConf.update(tree, key, value, force_add=True)
    plain = OmegaConf.to_container(tree)
    assert isinstance(plain, dict)
    config, found = _validate({str(key): value for key, value in plain.items()})
    problems += found
    if config is None or problems:
        raise ConfigError(STAGE, problems)
    return config


def compose_tree(overrides: Sequence[str], *, config_dir: Path | None = None) -> dict[str, Any]:
    """Return the composed configuration as plain containers, unvalidated (for `--cfg job`)."""
    parsed, problems = _parse(overrides, config_dir)
    tree, compose_problems = _compose(parsed, config_dir)
    if problems or compose_problems or tree is None:
        raise ConfigError(STAGE, problems + compose_problems)
    return tree


def expand_sweep(overrides: Sequence[str], *, config_dir: Path | None = None) -> list[list[str]]:
    """Return one list of overrides for every point of a `--multirun` grid, in Hydra's order."""
    import itertools

    _, problems = _parse(overrides, config_dir, sweep=True)
    if problems:
        raise ConfigError(STAGE, problems)
    choices = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.get_key_element()
        values = override.sweep_string_iterator() if override.is_sweep_override() else [override.get_value_element_as_str()]
        choices.append([f"{key}={value}" for value in values])
    return [list(point) for point in itertools.product(*choices)]


@cache
def groups() -> dict[str, tuple[str, ...]]:
    """Return every Hydra group of conf/ with its choices."""
    return {
        folder.name: tuple(sorted(file.stem for file in folder.glob("*.yaml") if not file.stem.startswith("_")))
        for folder in sorted(CONF_DIR.iterdir())
        if folder.is_dir()
    }


def _parse(texts: Sequence[str], config_dir: Path | None, *, sweep: bool = False) -> tuple[list[str], list[Problem]]:
    """Rewrite each override so that Hydra takes it and the schema judges it; collect what cannot be rewritten."""
    parser = OverridesParser.create()
    rewritten, problems = [], []
    for text in texts:
        try:
            (override,) = parser.parse_overrides([text])
        except HydraException as error:
            why = (
                str(error).splitlines()[0].replace("See https://hydra.cc/docs/1.2/advanced/override_grammar/basic for details", "")
            )
            problems.append(Problem(text, None, f"is not of the form key=value ({why.strip()})."))
            continue
        if override.is_sweep_override() and not sweep:
            problems.append(Problem(override.key_or_group, text.partition("=")[2], "several values make a sweep: add --multirun."))
        elif override.key_or_group.split(".")[0] == "hydra":
            problems.append(
                Problem(override.key_or_group, None, "Hydra's own outputs are off; runs_dir and run_name say where a run writes.")
            )
        elif override.is_delete():
            problems.append(Problem(text, None, "nothing can be deleted. Set a key to null where null is allowed."))
        elif override.key_or_group in groups() and not override.is_sweep_override():
            try:
                rewritten += _group_choice(override, config_dir)
            except ConfigError as error:
                problems += error.problems
        else:
            rewritten.append(f"++{override.key_or_group}={override.get_value_element_as_str()}")
    return rewritten, problems


def _group_choice(override: Override, config_dir: Path | None) -> list[str]:
    group, choice = override.key_or_group, override.get_value_element_as_str()
    choices = set(groups()[group])
    if config_dir is not None:
        choices |= {file.stem for file in (config_dir / group).glob("*.yaml")}
    if choice in choices or (choice == "null" and group in {"experiment", "debug"}):
        return [f"{group}={choice}"]
    if group == "model" and choice in CLASSIFIERS:
        return ["model=torchvision", f"++model.arch={choice}"]
    known = sorted(choices | set(CLASSIFIERS)) if group == "model" else sorted(choices)
    listed = ", ".join(sorted(choices)) + (", or any torchvision classifier" if group == "model" else "")
    raise ConfigError(STAGE, [Problem(group, choice, f"no such choice. There are: {listed}.{did_you_mean(choice, known)}")])


def _compose(overrides: list[str], config_dir: Path | None) -> tuple[dict[str, Any] | None, list[Problem]]:
    search = [f"hydra.searchpath=[file://{config_dir.resolve()}]"] if config_dir is not None else []
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
            tree = compose("config", overrides=[*search, *overrides])
        OmegaConf.resolve(tree)
        plain = OmegaConf.to_container(tree, throw_on_missing=False)
    except (HydraException, OmegaConfBaseException) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return None, [Problem(getattr(error, "full_key", None) or "conf", None, " ".join(lines))]
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}, []


def _validate(tree: dict[str, Any]) -> tuple[Config | None, list[Problem]]:
    try:
        return Config.model_validate(tree), []
    except ValidationError as error:
        return None, problems_of(error)


def _problems_behind(overrides: list[str], found: list[Problem], config_dir: Path | None) -> list[Problem]:
    """Find what the first problems hide: pydantic checks rules across fields only once every field is right.

    The overrides that caused a problem are left away, and the rest is validated again.
    """
    wrong = {problem.path for problem in found}
    rest = [text for text in overrides if text.lstrip("+").partition("=")[0] not in wrong]
    if len(rest) == len(overrides):
        return []
    tree, _ = _compose(rest, config_dir)
    return [] if tree is None else _validate(tree)[1]
