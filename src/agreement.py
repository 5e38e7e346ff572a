"""What all ranks have to agree on before they begin: where one raises alone, or does something else, the others wait for it."""

import hashlib
import platform
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from loguru import logger

from src import distributed
from src.batch import Source
from src.config import Config, ConfigError, Problem
from src.config.identity import flatten

T = TypeVar("T")
# A node may hold the data elsewhere, and load it otherwise.
_MAY_DIFFER = {
    *("data.path", "data.train_path", "data.val_path", "data.devkit_path", "data.cache_dir", "data.copy_to"),
    *("data.workers", "data.prefetch"),
}


class _Other(NamedTuple):
    """The first rank that says something else than rank 0: both values, and where the other rank is."""

    ours: Any
    theirs: Any
    where: str


def require_same_command(config: Config) -> None:
    """Refuse ranks with other settings or other code, and warn of other versions. Every rank must call it.

    Raises:
        ConfigError: on every rank, with every difference.
    """
    if distributed.world_size() == 1:
        return
    settings = {key: value for key, value in flatten(config) if key not in _MAY_DIFFER}
    said = _everyone({"settings": settings, "code": _digest_of_code()})
    problems = []
    for key in dict.fromkeys(key for _, words in said for key in words["settings"]):
        if other := _first_other(said, lambda words, key=key: words["settings"].get(key)):  # type: ignore[misc]
            problems.append(Problem(key, other.ours, f"but {other.theirs} on {other.where}. Start all nodes by the same command."))
    if other := _first_other(said, lambda words: words["code"]):
        fix = f"on {other.where} it is not rank 0's. Bring every node to the same commit, or run all from one shared folder."
        problems.append(Problem("the code", None, fix))
    if problems:
        raise ConfigError("what the nodes were told", problems)
    versions = _everyone(f"torch {torch.__version__}, Python {platform.python_version()}")
    if other := _first_other(versions, lambda version: version):
        logger.warning(f"{other.ours} here, but {other.theirs} on {other.where}: the same numbers cannot be promised.")


def require_same_data(sources: Mapping[str, Source], name: str) -> None:
    """Refuse nodes whose copies of the data are not the same. Every rank must call it.

    Args:
        sources: by split.
        name: the data's.

    Raises:
        ConfigError: on every rank, with every difference.
    """
    if distributed.world_size() == 1:
        return
    said = _everyone({split: _summary(source) for split, source in sources.items()})
    problems = []
    for split in sources:
        for what in ("images", "classes", "labels", "sizes of images"):
            if other := _first_other(said, lambda words, split=split, what=what: words[split][what]):  # type: ignore[misc]
                counts = f" ({other.ours:,} and {other.theirs:,})" if what == "images" else ""
                fix = f"its {split} split has other {what} on {other.where} than on rank 0{counts}. All nodes need the same files."
                problems.append(Problem("data", name, fix))
                break  # what follows differs with it
    if problems:
        raise ConfigError("the data", problems)


def problems_of_all(own: Sequence[Problem]) -> list[Problem]:
    """Return all ranks' problems, the same on every rank; what is not rank 0's names its host. Every rank must call it."""
    said = _everyone(list(own))
    _, found = said[0]
    known = {str(problem) for problem in found}
    for where, problems in said[1:]:
        for problem in problems:
            if str(problem) not in known:
                known.add(str(problem))
                found = [*found, _at(problem, where)]
    return list(found)


def naming_host(make: Callable[[], T], world: distributed.World) -> Callable[[], T]:
    """Return what does the same, but says on which node there is a problem, where there are several."""
    if world.local_size == world.size:
        return make

    def told() -> T:
        try:
            return make()
        except ConfigError as error:
            raise ConfigError(error.stage, [_at(problem, _here()) for problem in error.problems]) from error

    return told


def first_to_say(value: T | None) -> tuple[str, T] | None:
    """Return the first rank's value that is not None, and where that rank is. Every rank must call it."""
    return next(((where, said) for where, said in _everyone(value) if said is not None), None)


def first_unlike_rank_0(value: Any) -> str | None:
    """Return where the first rank is whose value is not rank 0's, or None. Every rank must call it."""
    other = _first_other(_everyone(value), lambda said: said)
    return None if other is None else other.where


def _everyone(value: T) -> list[tuple[str, T]]:
    """Return (where, value) of every rank, in rank order."""
    return distributed.gather((_here(), value))


def _here() -> str:
    return f"{socket.gethostname()} (rank {distributed.rank()})"


def _at(problem: Problem, where: str) -> Problem:
    return problem._replace(fix=f"on {where}: {problem.fix}")


def _first_other(said: Sequence[tuple[str, Any]], of: Callable[[Any], Any]) -> _Other | None:
    ours = of(said[0][1])
    return next((_Other(ours, of(words), where) for where, words in said[1:] if of(words) != ours), None)


def _summary(source: Source) -> dict[str, Any]:
    return {
        "images": len(source),
        "classes": hashlib.sha256("\0".join(source.classes).encode()).hexdigest(),
        "labels": hashlib.sha256(source.labels.tobytes()).hexdigest(),
        "sizes of images": hashlib.sha256(source.sizes.tobytes()).hexdigest(),
    }


def _digest_of_code() -> str:
    """Return a hash of this project's own files: names and content."""
    digest, root = hashlib.sha256(), Path(__file__).resolve().parent
    for file in sorted(root.rglob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(root).as_posix()} {len(content)} ".encode() + content)
    return digest.hexdigest()
