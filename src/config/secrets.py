"""Keep keys and passwords out of messages, logs and stored command lines.

None of the configuration's keys is one: a secret comes from the environment or .env. This is for what is typed by mistake.
"""

import re
from collections.abc import Sequence
from typing import Any

HIDDEN = "***"
_WORDS = {"key", "token", "secret", "password", "passwd", "pwd", "passphrase", "credential", "credentials"}
_ENDINGS = ("apikey", "token", "secret", "password", "passwd")  # without a separator: PGPASSWORD, accesstoken
# NAME=value, NAME: value, 'NAME': 'value', --name=value; the value ends at white space, or with its quote.
_ASSIGNMENT = re.compile(r"""(?P<name>(?<![\w.\-])[\w.\-]+)(?P<between>["']?\s?(?:=|:\s?))(?P<value>"[^"]*"|'[^']*'|[^\s,}\]]+)""")
_IN_URL = re.compile(r"(?P<scheme>(?<![A-Za-z0-9+.\-])[A-Za-z][A-Za-z0-9+.\-]*://)[^\s/@'\"]+@")


def is_secret(name: str) -> bool:
    """Return whether a key or a variable of this name would hold a secret: WANDB_API_KEY, hf-token, track.api_key, PGPASSWORD."""
    words = re.split(r"[^a-z0-9]+|_", name.lower())
    if words == ["key"]:  # messages speak of key=value
        return False
    return not _WORDS.isdisjoint(words) or any(word.endswith(_ENDINGS) for word in words)


def hide_secrets(text: str) -> str:
    """Return the text with the values of secret-looking names, and user:password of addresses, replaced by ***."""
    parts, start = [], 0
    while match := _ASSIGNMENT.search(text, start):
        if is_secret(match["name"]):
            parts += [text[start : match.start("value")], HIDDEN]
            start = match.end()
        else:  # its value may hold a name of its own: x={api_key: abc}
            parts.append(text[start : match.end("name")])
            start = match.end("name")
    return _IN_URL.sub(rf"\g<scheme>{HIDDEN}@", "".join([*parts, text[start:]]))


def hide_in_arguments(arguments: Sequence[str]) -> list[str]:
    """Return a command line without secrets; what follows a bare `--name` is its value."""
    hidden = []
    value_follows = False
    for argument in arguments:
        hidden.append(HIDDEN if value_follows else hide_secrets(argument))
        value_follows = argument.startswith("-") and "=" not in argument and is_secret(argument.lstrip("-"))
    return hidden


def hide_in_tree(tree: Any, *, name: str = "") -> Any:
    """Return plain containers without secrets: each text cleaned, each value of a secret-looking key replaced."""
    if isinstance(tree, dict):
        return {key: hide_in_tree(value, name=str(key)) for key, value in tree.items()}
    if name and is_secret(name) and tree is not None:
        return HIDDEN
    if isinstance(tree, list | tuple):
        return [hide_in_tree(item, name=name) for item in tree]
    return hide_secrets(tree) if isinstance(tree, str) else tree
