"""No command stands in a guide that nobody tries: a scenario types it, or the guide tells the reader why not."""

import ast
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


@pytest.mark.parametrize("file", sorted(HERE.glob("test_*_guide.py")), ids=lambda file: file.stem)
def test_what_is_declared_is_played(file: Path) -> None:
    """Each name in SCENARIOS, or SCENARIOS itself, is spoken of by a test or its parameters."""
    body = ast.parse(file.read_text()).body
    (declared,) = (node.value for node in body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SCENARIOS")
    spoken = {name for node in body if isinstance(node, ast.FunctionDef) for name in names_in(node)}
    assert "SCENARIOS" in spoken or names_in(declared) - spoken == set(), f"declared, and in no test: {names_in(declared) - spoken}"


def names_in(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
