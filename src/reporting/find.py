"""From what was typed to runs' folders: folders of runs, folders of such folders, and patterns that no shell expanded."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from src.config import ConfigError, Problem
from src.config.errors import did_you_mean
from src.reporting.records import FILES

_WILD = "*?["


class Found(NamedTuple):
    """What stands where it was typed.

    Attributes:
        runs: folders of runs, each once, in the order typed; within a folder or a pattern by name.
        others: (path, why) of what is something else.
    """

    runs: tuple[Path, ...]
    others: tuple[tuple[Path, str], ...]


def find_runs(words: Sequence[str], *, key: str) -> Found:
    """Return the runs that are meant.

    Args:
        words: paths and patterns.
        key: what a message calls them.

    Raises:
        ConfigError: with every path that does not exist, or if there is no run at all.
    """
    runs: dict[Path, Path] = {}
    others: dict[Path, str] = {}
    problems: list[Problem] = []
    for word in words:
        path = Path(word).expanduser()
        if path.exists():
            paths = [path]
        elif any(sign in word for sign in _WILD):
            paths = sorted((Path(found) for found in glob.glob(str(path))), key=_by_number)  # noqa: PTH207 (any pattern, absolute ones, too)
        else:
            paths = []
        if not paths:
            problems.append(Problem(key, word, _missing(path)))
        for candidate in paths:
            inside = _runs_in(candidate)
            runs |= {run.resolve(): run for run in inside if run.resolve() not in runs}
            if not inside:
                others[candidate] = "no run's folder" if candidate.is_dir() else "a file, no run's folder"
    if not problems and not runs:
        fix = "holds no run. A run's folder holds metrics.jsonl; runs stand in runs/ where runs_dir was not changed."
        problems = [Problem(key, str(path), fix) for path in others]
    if problems:
        raise ConfigError("the runs", problems)
    return Found(tuple(runs.values()), tuple(others.items()))


def is_run(path: Path) -> bool:
    """Return whether a folder is a run's, or what is left of one."""
    return any((path / name).is_file() for name in FILES)


def _runs_in(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    if is_run(path):
        return [path]
    return sorted((folder for folder in path.iterdir() if folder.is_dir() and is_run(folder)), key=_by_number)


def _missing(path: Path) -> str:
    if any(sign in path.name for sign in _WILD):
        return "nothing is called like that."
    beside = [other.name for other in path.parent.iterdir() if other.is_dir()] if path.parent.is_dir() else []
    return f"no such folder.{did_you_mean(path.name, beside)}"


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Sort demo-s10 behind demo-s9."""
    parts = re.split(r"([0-9]+)", str(path))
    return [(int(part) if number % 2 else -1, part) for number, part in enumerate(parts)]
