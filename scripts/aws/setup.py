"""`instance setup`, on the instance: code, environment, data, and the training as a service that goes on after every reboot.

    sudo python3 -m scripts.aws instance setup --volume-id vol-... --at /data -- torchrun --standalone -m src.train ...

Every step looks first at what there is, so the command may be killed and typed again. While the training runs, nothing under it is
changed. It needs no boto3 and calls nothing of AWS.
"""

import fcntl
import os
import shlex
import stat
from argparse import Namespace
from pathlib import Path

from scripts.aws import environment, service
from scripts.aws.account import Account
from scripts.aws.calls import answer, say
from scripts.aws.commands import Machine
from scripts.aws.errors import Problem, RefusedError, refuse
from scripts.aws.git import holds_credentials
from scripts.aws.repository import Wanted, put_in_place

ACTIONS: tuple[str, ...] = ()
_WHERE = "instance setup"


def setup(options: Namespace) -> int:
    """Carry it out. Returns the exit code."""
    options.command = options.command[1:] if options.command[:1] == ["--"] else options.command
    _check(options)
    account = Account(options.user, dry_run=options.dry_run)
    options.folder = Path(os.path.abspath(options.folder or account.home / "imagenet-trainer"))  # noqa: PTH100 (links stay)
    machine = Machine(dry_run=options.dry_run)
    with _alone(options.folder) as lock:
        account.held = (lock,)
        if service.is_active():
            return _while_it_trains(options, account)
        commit = put_in_place(
            options.folder, Wanted(options.repository, options.branch, options.commit), options.local_changes, account
        )
        python = environment.prepare(options, account)
        code = _mount(options, account)
        if code:
            return code
        _check_secrets(options.folder / ".env")
        if options.command:
            service.install(service.unit_text(options, account, python), start=not options.no_start, machine=machine)
    return answer(
        status="set up", folder=options.folder, commit=commit, python=python, service=service.NAME if options.command else None
    )


def _check(options: Namespace) -> None:
    """Refuse, with every problem at once, what could not end well."""
    problems = []
    if os.geteuid() != 0 and not options.dry_run and (options.command or options.volume_id):
        problems.append(
            Problem("user", os.environ.get("USER"), "must be root to mount and to install a service. Type sudo before it.")
        )
    if options.user in (None, "root") and options.command:
        problems.append(Problem("--user", options.user, "say who trains: a user of this machine that is not root."))
    if bool(options.volume_id) != bool(options.at):
        problems.append(Problem("--volume-id and --at", options.volume_id or options.at, "belong together."))
    if options.at and not _plain(options.at):
        problems.append(Problem("--at", options.at, "must be an absolute path without white space, quotes or %, such as /data."))
    if options.folder and not _plain(options.folder):
        problems.append(Problem("--folder", options.folder, "must be an absolute path without white space, quotes or %."))
    if holds_credentials(options.repository):
        problems.append(Problem("--repository", "***", "holds a user or password. Use a deploy key or a credential helper of git."))
    if options.branch and options.commit:
        problems.append(Problem("--branch and --commit", None, "exclude each other."))
    if options.when_finished != "nothing" and not (options.command and options.name and options.region):
        problems.append(Problem("--when-finished", options.when_finished, "needs --name, --region and a training's command."))
    why = service.forbidden_words(options.command)
    if why:
        problems.append(Problem("the training's command", None, why))
    if problems:
        raise RefusedError(_WHERE, problems)


def _plain(path: str) -> bool:
    """Whether a path may stand in a unit file as it is."""
    return path.startswith("/") and not any(character.isspace() or character in "\"'\\%$@" for character in path)


class _alone:  # noqa: N801 (a context manager, used like a function)
    """Holds the set-up of one folder; a second set-up waits for nothing and is refused."""

    def __init__(self, folder: Path) -> None:
        self._path = Path("/run/lock" if os.geteuid() == 0 else "/tmp") / f"imagenet-setup-{os.getuid()}-{folder.name}.lock"

    def __enter__(self) -> int:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            fix = "is held by another set-up, or by what a killed one has started and is still ending. Wait for it."
            raise refuse(_WHERE, "lock", self._path, fix) from None
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _while_it_trains(options: Namespace, account: Account) -> int:
    """Change nothing under a running training: what was asked for either stands already, or is refused."""
    installed = service.installed_text() or ""
    python = (
        next((line for line in installed.splitlines() if line.startswith("ExecStart=")), "")
        .removeprefix('ExecStart="')
        .partition('"')[0]
    )
    if options.command and service.unit_text(options, account, python) != installed:
        fix = "runs with another command or other options. Stop it first, it saves: sudo systemctl stop imagenet-training"
        raise refuse(_WHERE, service.NAME, None, fix)
    say(
        "The training runs: its code and environment stay as they are. To update: sudo systemctl stop imagenet-training, and again."
    )
    return answer(status="trains", folder=options.folder, service=service.NAME)


def _mount(options: Namespace, account: Account) -> int:
    """Let `volume mount` do it, which waits for the volume, checks it, and writes fstab. Returns its exit code; it has said why."""
    if not options.volume_id:
        return 0
    from scripts.aws.__main__ import main  # it imports this module, through its parsers

    words = ["volume", "mount", "--volume-id", options.volume_id, "--at", options.at, "--owner", account.user]
    words += ["--wait-seconds", str(options.wait_seconds), *(["--dry-run"] if options.dry_run else [])]
    say(shlex.join(words))
    return main(words)


def _check_secrets(file: Path) -> None:
    """Say if the file of keys can be read by others."""
    if file.exists() and stat.S_IMODE(file.stat().st_mode) & 0o077:
        say(f"WARNING: {file} can be read by other users of this machine. Type chmod 600 {file}")
