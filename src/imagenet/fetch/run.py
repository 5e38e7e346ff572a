"""Download what a preparation starts from. Safe to kill at any instant; the same command continues."""

from collections.abc import Callable
from pathlib import Path

from src.config import ConfigError, Problem
from src.config.prepare import PrepareConfig

STAGE = "the download"


def fetch(config: PrepareConfig, source: Path, progress: Callable[[int, int], None]) -> None:
    """Download config.fetch's files into the folder `source`, which is made. Where all is there, nothing is asked of the network.

    Args:
        config: `fetch` says from where, `origin` what, `workers` with how many threads.
        source: the folder to download into; notes and unfinished files stand in its folder .fetch.
        progress: called with (bytes there, bytes in all).

    Raises:
        ConfigError: it cannot be had; says what to install, sign, free or try.
    """
    raise ConfigError(STAGE, [Problem("fetch", config.fetch, "is being written.")])


def describe(config: PrepareConfig, source: Path) -> list[str]:
    """Say for dry_run=true what would be downloaded, a line each, and make nothing. Asks the service for sizes where it can.

    Raises:
        ConfigError: something is missing that the download needs.
    """
    raise ConfigError(STAGE, [Problem("fetch", config.fetch, "is being written.")])
