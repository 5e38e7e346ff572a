"""What a user did wrong, as data: a list of problems that is printed once, without a traceback, and exits with 2."""

import difflib
from collections.abc import Iterable
from typing import NamedTuple

from src.config.secrets import HIDDEN, hide_secrets, is_secret


class Problem(NamedTuple):
    """One thing to mend: where it stands, what it is now, and what to type instead."""

    path: str
    value: object
    fix: str

    def __str__(self) -> str:
        """Return one line, `path = value: fix`. What was typed for a key that looks like a secret's is not repeated."""
        path, fix = hide_secrets(self.path), hide_secrets(self.fix)
        if self.value is None:
            return f"{path}: {fix}"
        return f"{path} = {HIDDEN if is_secret(self.path) else hide_secrets(_short(self.value))}: {fix}"


class ConfigError(Exception):
    """Every problem of one stage (configuration, world size, data, run folder), for exit code 2.

    Args:
        stage: the words that follow "problem in", such as "the configuration".
        problems: at least one.
    """

    def __init__(self, stage: str, problems: Iterable[Problem]) -> None:
        self.stage = stage
        self.problems = tuple({str(problem): problem for problem in problems}.values())
        assert self.problems
        super().__init__(str(self))

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[str, tuple[Problem, ...]]]:
        """Travel between ranks whole."""
        return type(self), (self.stage, self.problems)

    def __str__(self) -> str:
        """Return the whole message: a heading, and a line a problem."""
        count = len(self.problems)
        heading = f"{count} problem{'s' if count > 1 else ''} in {self.stage}:"
        return "\n".join([heading, *(f"  {problem}" for problem in self.problems)])


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return " Did you mean x?" for the nearest candidate, or "" where nothing is near."""
    near = nearest(word, candidates)
    return f" Did you mean {near}?" if near else ""


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that is spelt most like the word, whatever its case, or None where nothing is near."""
    by_spelling = {candidate.lower(): candidate for candidate in candidates}
    near = difflib.get_close_matches(word.lower(), list(by_spelling), n=1, cutoff=0.6)
    return by_spelling[near[0]] if near else None


class AsTyped(str):
    """A value that is shown without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return the bare text."""
        return str(self)


def _short(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 120 else text[:40] + "..." + text[-77:]  # the end of a path is its name
