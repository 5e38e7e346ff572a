"""Every file of conf/ composes alone, says only what the schema knows, and what it says arrives."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.docs.reference import lines_of, schema_of
from src.config import Config, load
from src.config.compose import compose_tree
from src.config.lr_finder import FinderConfig, load_finder
from src.config.overrides import CONF_DIR, groups
from src.config.prepare import load_prepare
from src.config.problems import known_keys
from src.config.writer import WriterConfig, load_writer

OF_OTHER_DOORS = {*CONF_DIR.glob("*.yaml")} - {CONF_DIR / "config.yaml"}
FILES = sorted({*CONF_DIR.glob("**/*.yaml")} - OF_OTHER_DOORS)
CHOICES = [(group, choice) for group, choices in groups().items() for choice in choices]
WHOLE_TREE = sorted(groups().keys() - Config.model_fields.keys())  # experiment and debug speak of every group
NEEDED = {("model", "custom"): ["model.factory=my_module:build"]}
# Part of Hydra, not of the configuration.
HYDRAS = {"defaults", "hydra"}


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def own_leaves(group: str, choice: str) -> dict[str, object]:
    """Return what the file itself says, by the key that a user types."""
    tree = yaml.safe_load((CONF_DIR / group / f"{choice}.yaml").read_text())
    prefix = "" if group in WHOLE_TREE else f"{group}."
    return dict(leaves({key: value for key, value in tree.items() if key not in HYDRAS}, prefix))


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_a_choice_is_valid_alone_and_all_that_it_says_arrives(group: str, choice: str) -> None:
    partners = ["optim=sf_sgd"] if (group, choice) == ("average", "schedule_free") else NEEDED.get((group, choice), [])
    config = dict(leaves(load([*partners, f"{group}={choice}"]).model_dump(mode="json")))
    for key, value in own_leaves(group, choice).items():
        if not (isinstance(value, str) and ("${" in value or value == "???")):
            assert config[key] == value, key


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONF_DIR)))
def test_a_file_says_only_keys_that_the_schema_knows(file: Path) -> None:
    tree = yaml.safe_load(file.read_text())
    group = file.parent.name
    prefix = f"{group}." if group in Config.model_fields else ""
    said = {key for key, _ in leaves({key: value for key, value in tree.items() if key not in HYDRAS}, prefix)}
    assert said
    assert said <= set(known_keys())


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONF_DIR)))
def test_a_file_begins_with_what_selects_it(file: Path) -> None:
    group = file.parent.name
    lines = [line for line in file.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ")
    if group in groups() and group != "experiment" and not file.stem.startswith("_") and file.stem != "torchvision":
        assert re.match(rf"# {group}={file.stem}\b", lines[0])


def test_every_key_of_the_schema_has_its_default_in_conf() -> None:
    given = {key for group, choice in CHOICES for key in own_leaves(group, choice)}
    for file in FILES:
        if file.stem.startswith("_") or file.parent == CONF_DIR:
            prefix = "" if file.parent == CONF_DIR else f"{file.parent.name}."
            given |= {key for key, _ in leaves(yaml.safe_load(file.read_text()), prefix)}
    inner = {key.rpartition(".")[0] for key in known_keys()}
    assert set(known_keys()) - inner - given == set()


@pytest.mark.parametrize(("group", "choice"), [pair for pair in CHOICES if pair[0] in WHOLE_TREE])
def test_a_typed_value_wins_over_an_experiment_and_a_debug_file(group: str, choice: str) -> None:
    assert compose_tree([f"{group}={choice}", "epochs=123", "batch_size=7"])["epochs"] == 123


def test_debug_wins_over_an_experiment() -> None:
    config = load(["debug=fast", "experiment=demo"])
    assert (config.epochs, config.data.subset, config.data.name) == (2, "tiny", "fashion_mnist")


def test_every_key_of_the_writer_has_its_default_in_its_file() -> None:
    lines = (CONF_DIR / "ffcv_writer.yaml").read_text()
    assert lines.startswith("# python -m src.ffcv_writer ")
    assert set(yaml.safe_load(lines)) == set(WriterConfig.model_fields)
    assert load_writer([]).writer.target == "data/ffcv"


def test_every_key_of_the_finder_has_its_default_in_its_file() -> None:
    lines = (CONF_DIR / "lr_finder.yaml").read_text()
    assert lines.startswith("# python -m src.lr_finder ")
    assert set(yaml.safe_load(lines)) == set(FinderConfig.model_fields)
    assert load_finder([]).ranges == ((1e-7, 10.0, 100),)


def test_preparing_has_one_default_a_key() -> None:
    assert load_prepare([]).model_dump() == yaml.safe_load((CONF_DIR / "prepare.yaml").read_text())


@pytest.mark.parametrize("file", sorted(OF_OTHER_DOORS), ids=lambda file: file.stem)
def test_another_doors_file_has_one_commented_default_a_key(file: Path) -> None:
    """schema_of finds the schema that has just these keys, or fails."""
    assert file.read_text().startswith(f"# python -m src.{file.stem} ")
    assert not any(field.is_required() is False for field in schema_of(file).model_fields.values())
    assert [key for key, line in lines_of(file).items() if not line.comment] == []
