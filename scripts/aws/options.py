"""Options that several commands share, and the keys that none of them takes."""

import argparse
import re
from collections.abc import Callable, Sequence
from typing import NoReturn

from scripts.aws.errors import Problem, RefusedError

_KEY_OPTION = re.compile(r"^--?(aws-)?(access-?key|secret|session-?token|token|password|api-?key|credential)", re.IGNORECASE)
_KEY_ITSELF = re.compile(
    r"\b(AKIA|ASIA)[A-Z0-9]{16}\b|\bhf_[A-Za-z0-9]{30,}|\bghp_[A-Za-z0-9]{30,}"
    r"|\b[A-Za-z_]*(SECRET|TOKEN|API_KEY|PASSWORD|ACCESS_KEY)[A-Za-z_]*=\S"
)
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")


class Parser(argparse.ArgumentParser):
    """A parser that knows no abbreviations; its subparsers are such, too."""

    def __init__(self, *arguments: object, **settings: object) -> None:
        settings.setdefault("allow_abbrev", False)
        super().__init__(*arguments, **settings)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave with 2."""
        self.exit(2, f"{self.prog}: {message}\nType {self.prog} --help.\n")


def add_common(parser: argparse.ArgumentParser, *, cloud: bool = True) -> None:
    """Add --dry-run, and for what calls AWS --region (AWS_PROFILE and AWS_ENDPOINT_URL are boto3's own business)."""
    parser.add_argument("--dry-run", action="store_true", help="print every call and every local command instead of making it")
    if cloud:
        parser.add_argument("--region", help="default: that of the zone, else of your AWS configuration")


def add_waiting(parser: argparse.ArgumentParser, *, every: float, at_most: float) -> None:
    """Add --poll-seconds and --wait-seconds."""
    parser.add_argument("--poll-seconds", type=float, default=every, help="between two looks (default: %(default)s)")
    parser.add_argument("--wait-seconds", type=float, default=at_most, help="give up after this long (default: %(default)s)")


def name(value: str) -> str:
    """The type of --name: what tags, tokens and labels are made from.

    Raises:
        argparse.ArgumentTypeError: it would not fit into these.
    """
    if not NAME.match(value):
        raise argparse.ArgumentTypeError(f"{value!r} is no name: up to 63 letters, digits, dots, dashes and underscores.")
    return value


def identifier(start: str) -> Callable[[str], str]:
    """The type of an option that is an id of AWS.

    Args:
        start: of all ids of this kind, with its dash: "vol-".
    """

    def check(value: str) -> str:
        if not re.fullmatch(rf"{start}[0-9a-z]+", value):
            raise argparse.ArgumentTypeError(f"{value!r} is no such id. One looks like {start}0123456789abcdef0.")
        return value

    return check


def refuse_keys(arguments: Sequence[str]) -> None:
    """Refuse a command line that holds a key, without repeating it: it stands in the list of processes and in the shell's history.

    Raises:
        RefusedError: with the place of every such argument.
    """
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    problems = [
        Problem(
            f"argument {place}",
            None,
            "looks like a key. Keys are never typed: use `aws configure`, a role, or .env.",
        )
        for place, argument in enumerate(arguments, 1)
        if _KEY_ITSELF.search(argument) or (place <= len(own) and _KEY_OPTION.match(argument))
    ]
    if problems:
        raise RefusedError("the command line", problems)
