"""What stands behind `python -m src.benchmark prepare`: parsed, checked, every problem told at once."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from src.config import ConfigError, Problem
from src.config.errors import did_you_mean

STAGE = "the command line"
_LEAST = {"images": 100, "pairs": 1, "workers": 1}
_NAMES = ("data", *_LEAST, "folder")


class Options(NamedTuple):
    """What is measured.

    Attributes:
        data: a folder with image files, at any depth.
        images: they are repeated to this number.
        pairs: rounds.
        workers: threads, or processes; None: all CPUs that this process may use.
        folder: where everything is written; None: the system's temporary folder.
    """

    data: Path
    images: int = 4000
    pairs: int = 5
    workers: int | None = None
    folder: Path | None = None


def parse_prepare(arguments: Sequence[str]) -> Options:
    """Parse `key=value` arguments.

    Raises:
        ConfigError: with every problem.
    """
    given: dict[str, Any] = {}
    problems: list[Problem] = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in _NAMES:
            fix = f"no such option.{did_you_mean(key, _NAMES)} There are: {', '.join(_NAMES)}."
            problems.append(Problem(key, value or None, fix))
        elif key not in _LEAST:
            given[key] = Path(value).expanduser()
            if not given[key].is_dir():
                problems.append(Problem(key, value, "no such folder."))
        elif not (key == "workers" and value == "auto"):
            given[key] = int(value) if value.isascii() and value.isdecimal() else 0
            if given[key] < _LEAST[key]:
                problems.append(Problem(key, value, f"must be a whole number of at least {_LEAST[key]}."))
    if "data" not in given:
        problems.append(Problem("data", None, "was not given. Type data=<a folder of JPEGs>."))
    elif not problems and not next(pictures(given["data"]), None):
        problems.append(Problem("data", str(given["data"]), "holds no JPEG."))
    if problems:
        raise ConfigError(STAGE, problems)
    return Options(**given)


def pictures(folder: Path) -> Iterator[Path]:
    """Yield the JPEGs below a folder, by name."""
    return (path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg") and path.is_file())
