"""Commands of this machine (mkfs, mount, ...): all go through here, so that a dry run prints them instead."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence

from scripts.aws.calls import say
from scripts.aws.errors import FailedError, Problem, RefusedError, refuse

_FOLDERS_OF_ROOT = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # not in every user's PATH


class Machine:
    """This machine."""

    def __init__(self, *, dry_run: bool) -> None:
        self.dry_run = dry_run

    def run(self, command: Sequence[str], *, allowed: Sequence[int] = (0,)) -> int:
        """Change something; in a dry run only print it, and all is taken for well. Returns the exit code.

        Raises:
            FailedError: another exit code than those allowed.
            RefusedError: the program is missing.
        """
        if self.dry_run:
            sys.stdout.write(f"would run {shlex.join(command)}\n")
            return 0
        say(shlex.join(command))
        done = subprocess.run(_found(command), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode not in allowed:
            raise FailedError(f"{shlex.join(command)}: exit code {done.returncode}: {(done.stderr or done.stdout).strip()}")
        return done.returncode

    def read(self, command: Sequence[str], *, allowed: Sequence[int] = (0,)) -> tuple[int, str]:
        """Ask something, in a dry run too. Returns the exit code and what it printed.

        Raises:
            FailedError: another exit code than those allowed.
            RefusedError: the program is missing.
        """
        environment = dict(os.environ) | {"LC_ALL": "C", "TZ": "UTC"}
        done = subprocess.run(
            _found(command), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, env=environment
        )
        if done.returncode not in allowed:
            raise FailedError(f"{shlex.join(command)}: exit code {done.returncode}: {(done.stderr or done.stdout).strip()}")
        return done.returncode, done.stdout


def need_root(action: str, *, dry_run: bool) -> None:
    """Refuse where this process may not touch devices.

    Raises:
        RefusedError: not root, and not a dry run.
    """
    if os.geteuid() != 0 and not dry_run:
        raise refuse(f"volume {action}", "user", os.environ.get("USER"), "must be root here. Type sudo before the same command.")


def program(name: str) -> str | None:
    """Where a program lies; None: not installed."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_FOLDERS_OF_ROOT))


def _found(command: Sequence[str]) -> list[str]:
    path = program(command[0])
    if path is None:
        raise RefusedError("this machine", _missing([command[0]]))
    return [path, *command[1:]]


def _missing(names: Sequence[str]) -> list[Problem]:
    return [
        Problem(name, None, "is not installed. Install it with the system's package manager, and type the command again.")
        for name in names
    ]
