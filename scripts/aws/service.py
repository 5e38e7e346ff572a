"""The training as a service of systemd: its unit, written with every word of the command quoted, and put in place."""

import os
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from scripts.aws.account import Account
from scripts.aws.calls import say
from scripts.aws.commands import Machine, program
from scripts.aws.errors import refuse

NAME = "imagenet-training.service"
FOLDER = Path("/etc/systemd/system")
_TEMPLATE = (Path(__file__).parent / NAME).read_text()
_MOUNT = "RequiresMountsFor={at}\n# Never onto the root disk, where a volume was forgotten.\nAssertPathIsMountPoint={at}"


def quoted(argument: str) -> str:
    """Return one argument as ExecStart= understands it (man systemd.service, "Command lines"; man systemd.syntax, "Quoting").

    Raises:
        RefusedError: for what no unit can hold: a line break or another control character.
    """
    if any(ord(character) < ord(" ") or ord(character) == 0x7F for character in argument):
        raise refuse("the training's command", "argument", repr(argument), "holds a control character, which a unit file cannot.")
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def unit_text(options: Namespace, account: Account, python: str) -> str:
    """Return the unit.

    Args:
        options: of `instance setup`: folder, at, when_finished, name, region, command.
        account: who trains.
        python: the environment's.
    """
    command = [python, "-m", "scripts.aws.run_training"]
    if options.when_finished != "nothing":
        command += ["--when-finished", options.when_finished, "--instance", options.name, "--region", options.region]
    command += ["--", *options.command]
    path = os.pathsep.join([os.path.dirname(python), "/usr/local/bin", "/usr/bin", "/bin"])  # noqa: PTH120 (text, not a file)
    values = {
        "USER": account.user,
        "FOLDER": str(options.folder),
        "MOUNT": _MOUNT.format(at=options.at) if options.at else "",
        "PATH": quoted(f"PATH={path}").replace("$$", "$"),
        "COMMAND": " ".join(map(quoted, command)),
    }
    text = _TEMPLATE
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def is_active() -> bool:
    """Return whether the training runs, or is about to, on this machine."""
    if program("systemctl") is None:
        return False
    _, state = Machine(dry_run=False).read(["systemctl", "is-active", NAME], allowed=range(256))
    return state.strip() in ("active", "activating", "reloading", "deactivating")


def installed_text() -> str | None:
    """Return the unit as it lies there, or None."""
    try:
        return (FOLDER / NAME).read_text()
    except FileNotFoundError:
        return None


def install(text: str, *, start: bool, machine: Machine) -> None:
    """Write the unit, let it start at every boot, and start it now if asked to."""
    if machine.dry_run:
        say(f"would write {FOLDER / NAME}:\n{text}")
    elif installed_text() != text:
        write_whole(FOLDER / NAME, text, mode=0o644)
    machine.run(["systemctl", "daemon-reload"])
    machine.run(["systemctl", "enable", NAME])
    if start:
        machine.run(["systemctl", "reset-failed", NAME], allowed=(0, 1))  # too many starts of before do not count
        machine.run(["systemctl", "start", NAME])


def write_whole(path: Path, text: str, *, mode: int) -> None:
    """Write a file so that a crash leaves the old one or the new one."""
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def forbidden_words(command: Sequence[str]) -> str | None:
    """Return why this command cannot be a service that goes on by itself, or None."""
    if "--multirun" in command:
        return "is a sweep: a service is one run. Install it for one point, or start the sweep by hand."
    if "dry_run=true" in command:
        return "only checks: leave dry_run=true away."
    return None
