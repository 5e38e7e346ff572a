"""A door's own keys: `key=value` typed behind it, against the defaults of conf/<door>.yaml and a schema."""

from collections.abc import Sequence
from typing import TypeVar

import yaml
from pydantic import ValidationError

from src.config.errors import ConfigError, Problem, did_you_mean
from src.config.fields import Strict
from src.config.overrides import CONF_DIR, parse_value
from src.config.problems import problems_of

STAGE = "the command line"
Keys = TypeVar("Keys", bound=Strict)


def load_keys(
    schema: type[Keys], file: str, overrides: Sequence[str], *, as_typed: Sequence[str] = (), others: bool = False
) -> tuple[Keys, list[str]]:
    """Validate a door's keys.

    Args:
        schema: what they must be. Every field stands in the file.
        file: of conf/, with each key's meaning and default.
        overrides: `key=value`, as typed.
        as_typed: keys whose text is taken as it is: paths may hold commas, = and blanks. `null` is nothing.
        others: whether other keys belong to somebody else (the trainer's): they are handed back, not refused.

    Returns:
        the keys, and what is somebody else's, in order.

    Raises:
        ConfigError: with every problem at once.
    """
    tree = yaml.safe_load((CONF_DIR / file).read_text())
    problems: list[Problem] = []
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
            problems.append(Problem(*parsed, f"no such key. There are: {', '.join(tree)}.{did_you_mean(parsed[0], tree)}"))
        else:
            tree[parsed[0]] = parsed[1]
    try:
        keys = schema.model_validate(tree)
    except ValidationError as error:
        problems += problems_of(error, path_of=lambda location: str(location[0]))
    if problems:
        raise ConfigError(STAGE, problems)
    return keys, rest
