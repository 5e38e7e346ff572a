"""config.yaml in the run's folder: for people, and to refuse another configuration early. The checkpoints hold their own copy.

Its last line is a comment with the sha256 of the others, so that a changed digit does not become the configuration that is asked
for.
"""

import hashlib
from pathlib import Path
from typing import Any

import yaml
from loguru import logger

from src.config import Config, ConfigError, Problem
from src.files import write_atomically

_SEAL = b"# sha256 of the lines above: "


def write_config(path: Path, config: Config) -> None:
    """Write the configuration and its seal.

    Raises:
        OSError: what stood there before stands.
    """
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).encode()
    write_atomically(path, text + _SEAL + hashlib.sha256(text).hexdigest().encode() + b"\n")


def read_config(path: Path) -> dict[str, Any] | None:
    """Return what was written, or None, with a warning, where the file is not that any more.

    Raises:
        ConfigError: if it cannot be read at all.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        fix = f"cannot be read ({error.strerror}). Move it away: it is written anew from what the run is told."
        raise ConfigError("the run's folder", [Problem(str(path), None, fix)]) from error
    stored = sealed_config(data)
    if stored is not None:
        return stored
    logger.warning(
        f"{path} IS NOT WHAT WAS WRITTEN: damaged, edited, or of an older version. It is a record and no input: the newest "
        "checkpoint's own configuration is compared instead, and the file is written anew."
    )
    return None


def sealed_config(data: bytes) -> dict[str, Any] | None:
    """Return the configuration in a file's bytes, or None where they are not what was written."""
    text, found, seal = data.rpartition(_SEAL)
    if not found or seal != hashlib.sha256(text).hexdigest().encode() + b"\n":
        return None
    stored = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    assert isinstance(stored, dict)
    return stored
