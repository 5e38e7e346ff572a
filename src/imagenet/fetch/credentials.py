"""Keys and tokens: from the environment, or from a file .env in the current folder. They get into no message and no file."""

import os
from collections.abc import Mapping
from pathlib import Path

from src.config import ConfigError, Problem
from src.imagenet.fetch.remote import STAGE

_FILE = Path(".env")


def secrets_named(*names: str) -> Mapping[str, str]:
    """Return those that are set, and not empty. The environment counts before the file.

    Raises:
        ConfigError: there is a file that cannot be read.
    """
    found: dict[str, str] = {}
    if _FILE.is_file():
        try:
            from dotenv import dotenv_values
        except ImportError:
            fix = "is there, but cannot be read without python-dotenv: pip install 'imagenet-trainer[fetch]'."
            raise ConfigError(STAGE, [Problem(str(_FILE), None, fix)]) from None
        try:
            in_file = dotenv_values(_FILE, interpolate=False)
        except (OSError, ValueError) as error:
            fix = f"cannot be read ({getattr(error, 'strerror', None) or 'it is no text'}). Mend it or move it away."
            raise ConfigError(STAGE, [Problem(str(_FILE), None, fix)]) from None
        found.update({name: value for name in names if (value := in_file.get(name))})
    found.update({name: os.environ[name] for name in names if os.environ.get(name)})
    return {name: value.strip() for name, value in found.items()}


def installed_or_explain(module: str, extra: str) -> None:
    """Refuse where an optional package is missing.

    Raises:
        ConfigError: says what to install.
    """
    import importlib.util

    if importlib.util.find_spec(module) is None:
        raise ConfigError(STAGE, [Problem(module, None, f"is not installed: pip install 'imagenet-trainer[{extra}]'.")])
