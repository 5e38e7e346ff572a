"""Every knob is read by code, or it does not exist; and no default stands in code."""

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from src.config import Config
from src.config.audit import AuditConfig
from src.config.demo import DemoConfig
from src.config.evaluate import EvaluateConfig
from src.config.export import ExportKeys
from src.config.lr_finder import FinderConfig
from src.config.prepare import PrepareConfig
from src.config.problems import choice_key, parts_of
from src.config.report import ReportConfig
from src.config.writer import WriterConfig

SRC = Path(__file__).resolve().parents[2] / "src"
# The name of a choice whose group has one class only: it says in config.yaml which file was taken, and decides nothing.
LABELS = {choice_key(group) for group, field in Config.model_fields.items() if field.discriminator is None}
# Pydantic reads these to choose the class, and the code matches on the class.
CHOOSERS = {choice_key(group) for group, field in Config.model_fields.items() if field.discriminator is not None}
# Read by src/config itself, which answers with the run's name.
BY_IDENTITY = {"run_name"}
# Read by conf/ alone: the two folders below it are made of it. It is also shown in the message that names a missing folder.
BY_CONF_ALONE = {"data.path"}
KEYS = dict(parts_of(Config))


def reads(files: Iterable[Path]) -> set[tuple[str, str]]:
    """Return every (what it is read from, attribute) in some files: `config.data.workers` gives ("data", "workers").

    getattr with a literal name and the keywords of a class pattern are reads as well.
    """
    found: set[tuple[str, str]] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Attribute(value=owner, attr=name, ctx=ast.Load()):
                    found.add((last_word(owner), name))
                case ast.Call(func=ast.Name(id="getattr"), args=[owner, ast.Constant(value=str(name)), *_]):
                    found.add((last_word(owner), name))
                case ast.match_case(pattern=ast.MatchClass(kwd_attrs=names)):
                    found |= {("config", name) for name in names}
                case _:
                    pass
    return found


def last_word(owner: ast.expr) -> str:
    match owner:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.lstrip("_")
        case _:
            return ""


READS = reads(file for file in SRC.rglob("*.py") if SRC / "config" not in file.parents)
# The other commands' keys: where they are read, and what from. Only these files count, for `config` is the trainer's elsewhere.
COMMANDS: dict[type[BaseModel], tuple[str, set[tuple[str, str]]]] = {
    ReportConfig: ("config", reads((SRC / "reporting").rglob("*.py"))),
    PrepareConfig: ("config", reads([SRC / "prepare.py", *(SRC / "imagenet").rglob("*.py")])),
    ExportKeys: ("keys", reads([SRC / "export.py", *(SRC / "exporting").rglob("*.py")])),
    WriterConfig: ("writer", reads([SRC / "ffcv_writer.py"])),
    DemoConfig: ("demo", reads([SRC / "config" / "demo.py", *(SRC / "demo_page").rglob("*.py")])),
    AuditConfig: ("keys", reads([SRC / "audit.py", *(SRC / "auditing").rglob("*.py")])),
    EvaluateConfig: ("evaluate", reads([SRC / "evaluate.py", SRC / "evaluate_run.py", SRC / "predict_run.py"])),
    FinderConfig: ("finder", reads([SRC / "lr_finder.py", SRC / "lr_search.py", SRC / "config" / "lr_finder.py"])),
}
COMMANDS_KEYS = [(command, key) for command in COMMANDS for key in command.model_fields]


@pytest.mark.parametrize("key", [key for key in KEYS if key not in LABELS | CHOOSERS | BY_IDENTITY | BY_CONF_ALONE])
def test_a_knob_is_read_by_code(key: str) -> None:
    group, _, name = key.rpartition(".")
    assert READS & {(owner, name) for owner in ("config", group)}, f"nothing in src/ reads {key}"


@pytest.mark.parametrize(("command", "key"), COMMANDS_KEYS)
def test_a_key_of_a_command_is_read_by_its_code_and_has_its_default_in_conf_alone(command: type[BaseModel], key: str) -> None:
    owner, read = COMMANDS[command]
    assert (owner, key) in read, f"nothing that {command.__name__} is for reads {key}"
    assert command.model_fields[key].is_required()


@pytest.mark.parametrize("key", sorted(BY_CONF_ALONE))
def test_an_exception_is_used_by_conf(key: str) -> None:
    assert any(f"${{{key}}}" in file.read_text() for file in (SRC.parent / "conf").glob("**/*.yaml"))


def test_a_label_belongs_to_a_group_of_one_class() -> None:
    assert LABELS & KEYS.keys() == {"augment.name"}
    for key in LABELS & KEYS.keys():
        assert all(isinstance(choice, str) for choice in get_args(KEYS[key].annotation))


@pytest.mark.parametrize("key", list(KEYS))
def test_no_default_stands_in_code(key: str) -> None:
    assert KEYS[key].is_required()


def test_the_walk_sees_every_alternative() -> None:
    assert {"optim.betas", "optim.nesterov", "data.num_train", "data.train_path", "model.kwargs", "track.progress"} <= KEYS.keys()
