"""What `python -m src.report` is asked for. Its defaults stand in conf/report.yaml."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from src.config.door import load_keys
from src.config.errors import Problem
from src.config.fields import InsideUnit, Strict, Text

# What of an evaluation's protocol, and of the task, must be the same where accuracies are compared.
Differing = Literal[
    "data",
    "split",
    "subset",
    "images",
    "resize_size",
    "image_size",
    "crop",
    "interpolation",
    "engine",
    "weights",
    "test_time_augmentation",
]
_AS_TYPED = ("against", "target")


class ReportConfig(Strict):
    """How runs are reported. See conf/report.yaml for each key's meaning and default."""

    against: Text | None
    target: Text | None
    counted: Literal["last", "best"]
    confidence: InsideUnit
    power: InsideUnit
    allow: list[Differing]


def load_report(words: Sequence[str]) -> tuple[list[str], ReportConfig]:
    """Tell runs from keys, and validate the keys. A word is a key where it has a = and no such file exists.

    Returns:
        what names runs, in order, and the keys.

    Raises:
        ConfigError: with every problem at once.
    """
    settings = [word for word in words if re.match(r"\w+=", word) and not Path(word).exists()]
    runs = [word for word in words if word not in settings]
    problems = []
    if not runs:
        problems.append(
            Problem("runs", None, "were not given. Type one or more runs' folders, such as runs/demo-s0 or runs/demo-s*.")
        )
    config, _ = load_keys(ReportConfig, "report.yaml", settings, as_typed=_AS_TYPED, found=problems)
    return runs, config
