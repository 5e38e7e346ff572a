"""What `python -m src.audit` is asked for. Its defaults stand in conf/audit.yaml."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from src.config.door import load_keys
from src.config.errors import Problem
from src.config.fields import Count, CountOrZero, Flag, Seed, Strict


class AuditConfig(Strict):
    """How a run is audited. See conf/audit.yaml for each key's meaning and default."""

    windows: CountOrZero
    steps: Count
    reach: CountOrZero | None
    seed: Seed | None
    plans: Literal["all"] | CountOrZero
    evaluate: Flag
    compare: Literal["auto", "exact", "tolerance"]


class AuditOrder(NamedTuple):
    """The run's folder, how it is audited, and values that replace stored ones (data.path=... where the data moved)."""

    folder: Path
    audit: AuditConfig
    overrides: list[str]


def load_audit(words: Sequence[str]) -> AuditOrder:
    """Read the words behind the door.

    Raises:
        ConfigError: with every problem at once.
    """
    folders = [word for word in words if "=" not in word]
    problems: list[Problem] = []
    if len(folders) != 1:
        problems.append(Problem("run", " ".join(folders) or None, "name one run's folder: python -m src.audit runs/<name>"))
    elif not Path(folders[0]).expanduser().is_dir():
        problems.append(Problem("run", folders[0], "no such folder. Type the folder that src.train wrote: runs/<name>."))
    settings = [word for word in words if "=" in word]
    keys, rest = load_keys(AuditConfig, "audit.yaml", settings, others=True, found=problems)
    return AuditOrder(Path(folders[0]).expanduser(), keys, rest)
