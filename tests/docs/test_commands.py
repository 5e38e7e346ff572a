"""No command stands in a guide that nobody tries: a scenario types it, or the guide tells the reader why not."""

import importlib
from pathlib import Path

import pytest

from tests.docs.guides import commands_elsewhere, commands_of, guides
from tests.docs.scenarios import Scenario

HERE = Path(__file__).parent


def scenarios() -> list[Scenario]:
    """All that test_*_guide.py declare as SCENARIOS, and play."""
    modules = [importlib.import_module(f"tests.docs.{file.stem}") for file in sorted(HERE.glob("test_*_guide.py"))]
    return [scenario for module in modules for scenario in module.SCENARIOS]


@pytest.mark.parametrize("guide", guides())
def test_every_command_is_typed_by_a_test_or_says_why_not(guide: str) -> None:
    typed = {(command.guide, command.line): scenario for scenario in scenarios() for command in scenario.commands()}
    neither = []
    for command in commands_of(guide):
        scenario = typed.get((guide, command.line))
        if scenario is not None:
            print(f"{command.place}\n    typed by {scenario}{' (pytest --long)' if scenario.long else ''}")
        elif command.reason is None:
            neither.append(command.place)
    assert not neither, "neither typed by a scenario nor marked '# not run here: <why>':\n" + "\n".join(neither)


@pytest.mark.parametrize("guide", guides())
def test_a_mark_gives_its_reason(guide: str) -> None:
    bare = [command.place for command in commands_of(guide) if command.reason is not None and len(command.reason.split()) < 3]
    assert not bare, "'not run here' without a reason:\n" + "\n".join(bare)


@pytest.mark.parametrize("guide", guides())
def test_commands_stand_in_blocks_that_are_tried(guide: str) -> None:
    assert not commands_elsewhere(guide), "begin these blocks with ```bash:\n" + "\n".join(commands_elsewhere(guide))


@pytest.mark.parametrize("scenario", scenarios(), ids=str)
def test_every_declared_change_is_one(scenario: Scenario) -> None:
    assert not scenario.unused(), f"matches no command of {scenario}: {scenario.unused()}"
    assert scenario.commands(), f"{scenario} types nothing"
