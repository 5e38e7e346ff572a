"""A part of an experiment exchanged on the command line: `experiment=a40_adam optim=sgd` takes SGD as conf/optim/sgd.yaml has it.

What an experiment says of its own optimizer (betas, a rate for Adam) must not be said of another. So where a choice is typed that
is not the experiment's, the experiment's values of that group are left away, and with them what its choice had brought along
(schedule-free its schedule and average). Of data and model they stay, as far as the typed choice has such keys: an image size is
not ImageFolder's own.
"""

from collections.abc import Callable

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict

from src.config.overrides import CONF_DIR

_WHOLE = ("optim", "schedule", "augment", "average")  # groups whose values belong to the choice
_KEY_BY_KEY = ("data", "model")

Compose = Callable[[list[str]], DictConfig]


def exchange(tree: DictConfig, overrides: list[str], compose: Compose) -> None:
    """Put typed choices in the place of the experiment's, in a composed tree.

    Args:
        tree: Hydra's result for the overrides; changed in place.
        overrides: as Hydra saw them.
        compose: calls Hydra with others.
    """
    typed = {text.partition("=")[0] for text in overrides} & {*_WHOLE, *_KEY_BY_KEY}
    if not typed or not any(text.startswith("experiment=") for text in overrides):
        return
    own = compose([text for text in overrides if text.startswith("experiment=")])
    without = compose([text for text in overrides if not text.startswith("experiment=")])
    for group in sorted(typed):
        if _choice(own, group) == _choice(without, group):
            continue
        if group in _WHOLE:
            brought = {*_brought(group, _choice(own, group)), *_brought(group, _choice(without, group))}
            for each in {group, *(brought - typed)}:
                OmegaConf.update(tree, each, without[each], merge=False, force_add=True)
        else:
            with open_dict(tree):
                for key in set(tree[group]) - set(without[group]):
                    del tree[group][key]


def _choice(tree: DictConfig, group: str) -> str:
    """Return what tells the classes of a group apart: a source for data, else the name."""
    key = "source" if group == "data" else "name"
    return str(OmegaConf.select(tree, f"{group}.{key}"))


def _brought(group: str, choice: str) -> set[str]:
    """Return the groups that a choice's file sets as well."""
    file = CONF_DIR / group / f"{choice}.yaml"
    if not file.exists():  # a user's own, or a label
        return set()
    entries = yaml.safe_load(file.read_text()).get("defaults", [])
    words = [next(iter(entry)) for entry in entries if isinstance(entry, dict)]
    return {word.removeprefix("override /").partition("@")[0] for word in words if word.startswith("override /")}
