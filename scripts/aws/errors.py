"""What ends a command: a refusal with every problem at once (exit 2), or a failure (exit 1). Neither shows a traceback."""

from collections.abc import Sequence
from typing import NamedTuple

EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130


class Problem(NamedTuple):
    """One thing that is wrong: its name (an option, a volume, a device), its value, and what to do instead."""

    what: str
    value: object
    fix: str

    def __str__(self) -> str:
        value = "" if self.value is None else f" = {self.value}"
        return f"{self.what}{value}: {self.fix}"


class RefusedError(Exception):
    """The command will not be carried out as it was typed, or in this state of things: exit 2."""

    def __init__(self, where: str, problems: Sequence[Problem]) -> None:
        self.where, self.problems = where, tuple(problems)
        super().__init__("\n".join([f"{where}:", *(f"  - {problem}" for problem in problems)]))


class FailedError(Exception):
    """AWS or a local command said no, or something did not happen in time: exit 1. The same command may be typed again."""


class NoAnswerError(FailedError):
    """AWS could not be reached, or did not answer."""


class AnswerLostError(NoAnswerError):
    """A request that must not be repeated may or may not have arrived: look at AWS's state before another."""


def refuse(where: str, what: str, value: object, fix: str) -> RefusedError:
    """One problem as a refusal, to be raised."""
    return RefusedError(where, [Problem(what, value, fix)])
