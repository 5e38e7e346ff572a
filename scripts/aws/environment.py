"""The Python environment of the training: a virtual one in the code's folder (.venv), one of conda's, or none of ours."""

import hashlib
import json
import shutil
from argparse import Namespace
from pathlib import Path

from scripts.aws.account import Account
from scripts.aws.calls import say
from scripts.aws.errors import FailedError, refuse

_NEEDED = (3, 11)  # requires-python of pyproject.toml
_STAMP = "imagenet-trainer.json"  # written last: what it says is installed, is
_BEGUN = "imagenet-trainer.begun"
_CONDA = "conda:"


def prepare(options: Namespace, account: Account) -> str:
    """Make the environment, or bring it up to date. Returns the path of its Python.

    Args:
        options: of `instance setup`: folder, environment ("venv", "conda:<name>", "none"), python, extras.
        account: who owns it.

    Raises:
        RefusedError: Python is too old, or missing.
        FailedError: pip or conda failed. The same command goes on.
    """
    if options.environment == "none":
        return _version_checked(shutil.which(options.python) or options.python, account)
    if options.environment.startswith(_CONDA):
        python = _conda(options.environment.removeprefix(_CONDA), options.python, account)
        place = Path(python).parents[1]
    else:
        place = options.folder / ".venv"
        python = _venv(place, options.python, account)
    _install(options, python, place, account)
    return python


def _venv(place: Path, python: str, account: Account) -> str:
    own = place / "bin" / "python"
    begun = place / _BEGUN
    if (place / _STAMP).exists() or (own.exists() and not begun.exists()):  # ours and whole, or the user's own
        return _version_checked(str(own), account)
    _version_checked(shutil.which(python) or python, account)
    if place.exists() and any(place.iterdir()) and not begun.exists():
        raise refuse("instance setup", str(place), None, "exists and is no virtual environment. Move it away.")
    account.run(["mkdir", "--parents", str(place)])
    account.run(["touch", str(begun)])
    try:
        # Not --clear, which would remove the mark: what a killed venv or pip has left is written over.
        account.run([python, "-m", "venv", str(place)])
    except FailedError as error:
        hint = "On Debian and Ubuntu it needs the package python3-venv: sudo apt-get install python3-venv."
        raise FailedError(f"{error} {hint}") from None
    return str(own)


def _conda(name: str, python: str, account: Account) -> str:
    listed = account.ask(["conda", "env", "list", "--json"])
    if listed is None:
        raise refuse(
            "instance setup", "--environment", f"{_CONDA}{name}", "needs conda: `conda env list` does not run for this user."
        )
    if not any(Path(path).name == name for path in json.loads(listed)["envs"]):
        version = python.removeprefix("python")
        wanted = version if version.startswith("3.") else "3.12"
        account.run(["conda", "create", "--yes", "--quiet", "--name", name, f"python={wanted}", "pip"], shown=True)
    if account.dry_run:
        return "python"
    found = account.ask(["conda", "run", "--name", name, "python", "-c", "import sys; print(sys.executable)"])
    if found is None:
        raise FailedError(
            f"conda run --name {name} python does not run: the environment is damaged. conda env remove --name {name}"
        )
    return _version_checked(found.strip(), account)


def _install(options: Namespace, python: str, place: Path, account: Account) -> None:
    """Let pip install the project as it stands, unless it did."""
    wanted = _fingerprint(options, python)
    stamp = place / _STAMP
    if stamp.exists() and stamp.read_text() == wanted:
        say(f"{place}: nothing to install")
        return
    project = f"{options.folder}[{options.extras}]" if options.extras else str(options.folder)
    constraints = options.folder / "constraints.txt"
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet"]
    limits = ["--constraint", str(constraints)] if constraints.exists() else []
    account.run([*command, *limits, "--editable", project], shown=True)
    if account.dry_run:
        return
    stamp.write_text(wanted)
    account.own(stamp)
    (place / _BEGUN).unlink(missing_ok=True)


def _fingerprint(options: Namespace, python: str) -> str:
    """What decides what pip would do, as text."""
    files = {}
    for name in ("pyproject.toml", "constraints.txt"):
        path = options.folder / name
        files[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
    return json.dumps({"python": python, "folder": str(options.folder), "extras": options.extras, **files}, indent=1)


def _version_checked(python: str, account: Account) -> str:
    said = account.ask([python, "-c", "import sys; print(*sys.version_info[:2])"])
    if said is None:
        raise refuse("instance setup", "--python", python, "does not run.")
    if tuple(map(int, said.split())) < _NEEDED:
        fix = f"is Python {'.'.join(said.split())}, and {'.'.join(map(str, _NEEDED))} is needed. Install one: --python python3.12."
        raise refuse("instance setup", "--python", python, fix)
    return python
