"""The reader's way through a guide: its commands, typed in order in a fresh copy of the project, with every change declared."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import LAUNCHER_VARIABLES
from tests.docs.guides import ROOT, Command, commands_of

COPIED = ("src", "conf", "scripts", "pyproject.toml")  # what a clone has that commands of a guide need


@dataclass(frozen=True)
class Swap:
    """What stands in the guide, and what the test types instead; `{name}` is a place that the test gives."""

    shown: str
    typed: str
    why: str


@dataclass(frozen=True)
class Added:
    """Words typed behind every command that contains `to`: to make it small, or to keep to this machine."""

    to: str
    words: str
    why: str


@dataclass(frozen=True)
class Scenario:
    """The commands under some headings of a guide, in order, but for those that the guide marks as not run here.

    Attributes:
        sections: titles of headings; () is the whole guide.
        changes: all that is typed otherwise than the guide says.
        exits: part of a command to the exit code that the guide promises, where it is not 0.
        long: it takes a minute or more.
        below: what stands under the sections' own subheadings belongs to it, too.
    """

    guide: str
    sections: tuple[str, ...] = ()
    changes: tuple[Swap | Added, ...] = ()
    exits: Mapping[str, int] = field(default_factory=dict)
    long: bool = False
    below: bool = True

    def __str__(self) -> str:
        return f"{self.guide}-{'+'.join(self.sections) or 'all'}".replace(" ", "_")

    def commands(self) -> list[Command]:
        """Return the commands that it types; every section must have one."""
        shown = commands_of(self.guide)
        for section in self.sections:
            assert any(section in command.headings for command in shown), f"{self.guide}: no command stands under {section!r}"
        return [command for command in shown if command.reason is None and self._takes(command)]

    def _takes(self, command: Command) -> bool:
        titles = command.headings if self.below else command.headings[-1:]
        return not self.sections or bool(set(self.sections) & set(titles))

    def unused(self) -> list[Swap | Added | str]:
        """Return what is declared and matches no command."""
        texts = [command.text for command in self.commands()]
        changes = [change for change in self.changes if not any(_part(change) in text for text in texts)]
        return [*changes, *(part for part in self.exits if not any(part in text for text in texts))]

    def typed(self, command: Command, places: Mapping[str, object]) -> str:
        """Return what the test types for a command of the guide."""
        text = command.text
        for change in self.changes:
            if isinstance(change, Swap):
                text = text.replace(change.shown, _filled(change.typed, places))
            elif change.to in command.text:
                text = f"{text} {_filled(change.words, places)}"
        return text

    def play(self, shell: "Shell", **places: object) -> list[subprocess.CompletedProcess[str]]:
        """Type all commands; each must end as the guide says, and print what the guide shows."""
        done = []
        for command in self.commands():
            text = self.typed(command, places)
            ended = shell.type(text)
            wanted = next((code for part, code in self.exits.items() if part in command.text), 0)
            told = f"{command.place}\ntyped: {text}\n{ended.stdout}\n{ended.stderr[-8000:]}\n"
            assert ended.returncode == wanted, f"{told}exit code {ended.returncode}, not {wanted}"
            unseen = [line for line in command.shown if line and not seen(line, ended.stdout + ended.stderr)]
            assert not unseen, f"{told}the guide shows what is not seen: {unseen}"
            done.append(ended)
        return done


class Shell:
    """A reader's shell in a copy of the project: variables and the folder stay from command to command."""

    def __init__(self, folder: Path, variables: Mapping[str, str] | None = None, *, patience: float = 280.0) -> None:
        self.project = folder / "project"
        for name in COPIED:
            source, copy = ROOT / name, self.project / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, copy)
        strange = (*LAUNCHER_VARIABLES, "PYTHONPATH", "AWS_", "HF_", "KAGGLE_", "WANDB_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
        (folder / "home").mkdir()
        own = {"PATH": f"{sys.prefix}/bin:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        own |= {"HOME": str(folder / "home"), "AWS_EC2_METADATA_DISABLED": "true"}
        own |= {"PIP_DRY_RUN": "1", "PIP_NO_INDEX": "1"}  # no guide's command installs anything here, marked or not
        self._variables = kept | own | dict(variables or {})
        self._patience = patience
        self._state = folder / "shell"
        self._state.write_text(f"cd {shlex.quote(str(self.project))}\n")

    def type(self, text: str) -> subprocess.CompletedProcess[str]:
        """Run one command line."""
        state = shlex.quote(str(self._state))
        script = f'. {state}\n{text}\ncode=$?\n{{ export -p; printf "cd %q\\n" "$PWD"; }} > {state}\nexit $code\n'
        return subprocess.run(
            ["bash", "-c", script], env=self._variables, capture_output=True, text=True, timeout=self._patience, check=False
        )


def seen(line: str, output: str) -> bool:
    """Return whether a line that a guide shows was printed: `...` stands for anything, and any number for any other."""
    words = re.escape(re.sub(r"\d[\d,.]*", "0", " ".join(line.split()))).replace(re.escape("..."), ".*")
    return re.search(words, re.sub(r"\d[\d,.]*", "0", " ".join(output.split()))) is not None


def _part(change: Swap | Added) -> str:
    return change.shown if isinstance(change, Swap) else change.to


def _filled(text: str, places: Mapping[str, object]) -> str:
    for name, place in places.items():
        text = text.replace("{" + name + "}", str(place))
    return text
