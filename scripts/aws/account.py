"""Commands in the name of the user who owns the training, also where root carries the set-up out."""

import os
import pwd
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.aws.calls import say
from scripts.aws.commands import program
from scripts.aws.errors import FailedError, refuse


class Account:
    """The user, and what is held while commands run.

    Args:
        user: a name of this machine's.
        dry_run: print what would change something instead of running it.

    Raises:
        RefusedError: if there is no such user, or this process may not act for it.
    """

    def __init__(self, user: str, *, dry_run: bool) -> None:
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            raise refuse("instance setup", "--user", user, "is no user of this machine. See `getent passwd`.") from None
        if os.geteuid() not in (0, entry.pw_uid):
            raise refuse("instance setup", "--user", user, "is somebody else: type sudo before the same command.")
        self.user, self.uid, self.gid, self.home, self.dry_run = user, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir), dry_run
        self._before = [] if os.geteuid() == entry.pw_uid else ["runuser", "-u", user, "--", "env", f"HOME={entry.pw_dir}"]
        self.held: tuple[int, ...] = ()  # descriptors of locks: a command that outlives us holds them until it has ended

    def run(self, command: Sequence[str], *, variables: Mapping[str, str] | None = None, shown: bool = False) -> str:
        """Change something; in a dry run only print it. Returns what it printed.

        Args:
            command: the program and its arguments.
            variables: of the environment, besides the present ones.
            shown: let its output pass through (pip's, for minutes) instead of returning it.

        Raises:
            FailedError: it ended with another code than 0.
        """
        if self.dry_run:
            sys.stdout.write(f"would run {shlex.join(command)}\n")
            return ""
        say(shlex.join(command))
        code, out, errors = self._start(command, variables, shown=shown)
        if code:
            raise FailedError(f"{shlex.join(command)}: exit code {code}: {(errors or out).strip()}")
        return out

    def ask(self, command: Sequence[str], *, variables: Mapping[str, str] | None = None) -> str | None:
        """Ask something, in a dry run too. Returns what it printed, or None where it ended with another code than 0."""
        code, out, _ = self._start(command, variables, shown=False)
        return None if code else out

    def own(self, path: Path) -> None:
        """Give a file or folder that root made to the user."""
        if not self.dry_run and os.geteuid() == 0:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def _start(self, command: Sequence[str], variables: Mapping[str, str] | None, *, shown: bool) -> tuple[int, str, str]:
        if program(command[0]) is None:
            raise refuse("this machine", command[0], None, "is not installed. Install it with the system's package manager.")
        pipe = None if shown else subprocess.PIPE
        done = subprocess.run(
            [*self._before, *command],
            stdout=sys.stderr if shown else pipe,  # the output holds results only
            stderr=pipe,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="surrogateescape",  # names of files need not be UTF-8
            env={**os.environ, "LC_ALL": "C.UTF-8", **(variables or {})},
            pass_fds=self.held,
            check=False,
        )
        return done.returncode, done.stdout or "", done.stderr or ""
