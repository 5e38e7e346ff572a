"""What doors with keys of their own share: their parser, their keys (conf/<door>.yaml and a schema), and how they end early."""

import argparse
import signal
from collections.abc import Callable, Sequence
from functools import wraps
from types import FrameType
from typing import TypeVar

import yaml
from pydantic import ValidationError

from src.config.cli import STAGE, exit_with
from src.config.errors import ConfigError, Problem, did_you_mean
from src.config.fields import Strict
from src.config.overrides import CONF_DIR, parse_value
from src.config.problems import problems_of

__all__ = ["EXIT_FAILED", "STAGE", "TerminatedError", "door", "end_at_sigterm", "load_keys", "parser_of"]
EXIT_FAILED, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 130, 143
Keys = TypeVar("Keys", bound=Strict)
Main = Callable[[Sequence[str]], int]


class TerminatedError(KeyboardInterrupt):
    """SIGTERM, met wherever Ctrl-C would be."""


def door(main: Main) -> Main:
    """Turn what ends a door early into its exit code: 2 after what was typed wrong, 130 after Ctrl-C, 143 after SIGTERM."""

    @wraps(main)
    def entered(arguments: Sequence[str]) -> int:
        try:
            return main(arguments)
        except ConfigError as error:
            exit_with(error)
        except TerminatedError:
            return EXIT_TERMINATED
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED

    return entered


def end_at_sigterm() -> None:
    """From now on clean up after SIGTERM as after Ctrl-C; without this it ends the process where it stands."""
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise TerminatedError


def parser_of(
    name: str, about: str, *, before: str = "", after: str = "", metavar: str = "key=value", help_text: str = "see below"
) -> argparse.ArgumentParser:
    """Return a door's parser. What is typed becomes `words`, and --help tells every key of conf/<name>.yaml.

    Args:
        name: of the door: python -m src.<name>.
        about: what it does.
        before: the keys, in --help.
        after: them.
        metavar: what a word is.
        help_text: about the words.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m src.{name}",
        description=about,
        epilog=before + (CONF_DIR / f"{name}.yaml").read_text() + after,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("words", nargs="*", metavar=metavar, help=help_text)
    return parser


def load_keys(
    schema: type[Keys],
    file: str,
    overrides: Sequence[str],
    *,
    as_typed: Sequence[str] = (),
    others: bool = False,
    besides: Sequence[str] = (),
    found: Sequence[Problem] = (),
    check: Callable[[Keys], Sequence[Problem]] = lambda keys: (),
) -> tuple[Keys, list[str]]:
    """Validate a door's keys.

    Args:
        schema: what they must be. Every field stands in the file.
        file: of conf/, with each key's meaning and default.
        overrides: `key=value`, as typed.
        as_typed: keys whose text is taken as it is: paths may hold commas, = and blanks. `null` is nothing.
        others: whether other keys belong to somebody else (the trainer's): they are handed back, not refused.
        besides: what else may be typed, for the message about a key that does not exist.
        found: what the door itself has found wrong; it is told first.
        check: tells what is wrong with keys that are each right by themselves.

    Returns:
        the keys, and what is somebody else's, in order.

    Raises:
        ConfigError: with every problem at once.
    """
    tree = yaml.safe_load((CONF_DIR / file).read_text())
    problems = list(found)
    rest: list[str] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if key in as_typed and equals:
            tree[key] = None if value == "null" else value
            continue
        if others and key.lstrip("+") not in tree:
            rest.append(text)
            continue
        parsed = parse_value(text)
        if isinstance(parsed, Problem):
            problems.append(parsed)
        elif parsed[0] not in tree:
            known = ", ".join([*tree, *besides])
            problems.append(Problem(*parsed, f"no such key. There are: {known}.{did_you_mean(parsed[0], tree)}"))
        else:
            tree[parsed[0]] = parsed[1]
    try:
        keys = schema.model_validate(tree)
        problems += check(keys)
    except ValidationError as error:
        problems += problems_of(error, path_of=lambda location: str(location[0]))
    if problems:
        raise ConfigError(STAGE, problems)
    return keys, rest
