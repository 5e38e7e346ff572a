"""The same command has the same run, a changed one another; and a run may go on with other bookkeeping."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from src.config import Config, load
from src.config.identity import differences, flatten, run_name

ROOT = Path(__file__).resolve().parents[3]
# These decide where and how a run is computed, watched and kept, never what it computes.
BOOKKEEPING = {
    "save_every_steps",
    "timeout_seconds",
    "keep_top_k",
    "runs_dir",
    "run_name",
    "resume",
    "dry_run",
    "profile_steps",
    "target_hours",
    "estimate_seconds",
    "price_per_hour",
    "price_currency",
    "data.workers",
    "data.prefetch",
    "data.path",
    "data.train_path",
    "data.val_path",
    "data.devkit_path",
    "data.cache_dir",
    "data.copy_to",
    "data.in_memory",
}
COMMANDS = [
    [],
    ["data=synthetic", "model=small_resnet", "optim=adam"],
    ["data=ffcv"],
    ["data=tar"],
    ["optim=sf_adamw", "model=custom", "model.factory=a:b", "model.kwargs={width: 3}"],
]
HOW_IT_RUNS = {
    *("run_name", "runs_dir", "resume", "dry_run", "profile_steps", "target_hours"),
    *("estimate_seconds", "price_per_hour", "price_currency"),
    *("data.workers", "data.prefetch", "data.cache_dir", "data.copy_to", "data.in_memory"),
}


def is_bookkeeping(key: str) -> bool:
    return key in BOOKKEEPING or key.startswith("track.")


def another(value: object) -> object:
    """Return another value of the same kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case list():
            return [*value, "more"]
        case _:
            return f"{value} changed"


def with_value(config: Config, key: str, value: object) -> dict[str, Any]:
    """Return the stored form with one leaf changed."""
    stored = config.model_dump(mode="json")
    *groups, name = key.split(".")
    place = stored
    for group in groups:
        place = place[group]
    place[name] = value
    return stored


@pytest.mark.parametrize("command", COMMANDS)
def test_any_difference_counts_but_bookkeeping(command: list[str]) -> None:
    config = load(command)
    for key, value in flatten(config):
        found = differences(config, with_value(config, key, another(value)))
        assert found == ([] if is_bookkeeping(key) else [(key, another(value), value)]), key


def test_a_key_that_only_one_side_has_is_a_difference() -> None:
    stored = load(["optim=adam"]).model_dump(mode="json")
    found = {key: (before, now) for key, before, now in differences(load([]), stored)}
    assert found["optim.betas"] == ([0.9, 0.999], None)
    assert found["optim.momentum"] == (None, 0.9)


def test_the_same_command_has_the_same_name() -> None:
    command = ["model=resnet18", "optim=adam", "seed=3"]
    name = run_name(load(command))
    assert name == run_name(load(command[::-1]))
    assert name.startswith("imagefolder-resnet18-adam-s3-")
    assert len(name) == len("imagefolder-resnet18-adam-s3-") + 8


def test_another_process_gives_the_same_name() -> None:
    # A salted hash would give every process its own, and nothing would ever resume.
    code = "from src.config import load; from src.config.identity import run_name; print(run_name(load(['data=synthetic'])))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == run_name(load(["data=synthetic"]))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # any other value will do for a name, a wrong one too
def test_the_name_changes_with_every_key_but_how_it_runs(command: list[str]) -> None:
    config = load(command)
    for key, value in flatten(config):
        changed = copy_with(config, key.split("."), another(value))
        how = key in HOW_IT_RUNS or key.startswith("track.")
        assert key == "run_name" or (run_name(changed) == run_name(config)) == how, key


def copy_with(part: Any, path: list[str], value: object) -> Any:
    """Return the configuration with one leaf changed, unvalidated."""
    name, *rest = path
    old = part[name] if isinstance(part, dict) else getattr(part, name)
    new = copy_with(old, rest, value) if rest else value
    return part | {name: new} if isinstance(part, dict) else part.model_copy(update={name: new})


def test_a_given_name_is_the_name() -> None:
    assert run_name(load(["run_name=mine", "seed=5"])) == "mine"


def test_engines_that_make_the_same_pixels_are_the_same_run() -> None:
    exact = [load([f"data.engine={engine}"]) for engine in ("auto", "torchvision", "nvimgcodec")]
    assert len({run_name(config) for config in exact}) == 1
    assert differences(exact[0], exact[1].model_dump(mode="json")) == []
    other = load(["data.engine=dali"])
    assert run_name(other) != run_name(exact[0])
    assert differences(other, exact[1].model_dump(mode="json")) == [("data.engine", "torchvision", "dali")]
