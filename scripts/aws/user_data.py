"""The user data of an instance: a script with the values of `instance launch`, each quoted, and none of them secret."""

import re
import shlex
from argparse import Namespace
from pathlib import Path

from scripts.aws.errors import refuse

LIMIT = 16384  # bytes, before base64: EC2 User Guide, "Run commands when you launch an EC2 instance"
_TEMPLATE = Path(__file__).parent / "user_data.sh"
_KIND = "#cloud-boothook\n"  # cloud-init takes this line away
_PLACE = re.compile(r"^@VALUES@$", re.MULTILINE)


def user_data(options: Namespace, *, volume_id: str | None, region: str | None) -> str:
    """Return the script.

    Args:
        options: of `instance launch`.
        volume_id: of the volume that will be attached; None: none.
        region: of the instance.

    Raises:
        RefusedError: it is longer than EC2 takes.
    """
    folder = options.folder or f"/home/{options.user}/imagenet-trainer"
    values = {
        "OWNER": options.user,
        "FOLDER": folder,
        "REPOSITORY": options.repository,
        "REVISION": options.commit or options.branch or "",
        "BOOTSTRAP_PYTHON": options.python,
    }
    lines = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    lines.append(f"SETUP=({shlex.join(setup_arguments(options, folder, volume_id=volume_id, region=region))})")
    lines.insert(-1, "# shellcheck disable=SC2016,SC2054 # words as they were typed")
    text = _KIND + _PLACE.sub(lambda _: "\n".join(lines), _TEMPLATE.read_text(), count=1)
    if len(text.encode()) > LIMIT:
        fix = f"makes user data of {len(text.encode())} bytes, and EC2 takes {LIMIT}. Put it into a script of the repository."
        raise refuse("instance launch", "the training's command", None, fix)
    return text


def setup_arguments(options: Namespace, folder: str, *, volume_id: str | None, region: str | None) -> list[str]:
    """Return the arguments of `instance setup` on the instance."""
    words = ["--name", options.name, "--user", options.user, "--folder", folder, "--repository", options.repository]
    words += ["--python", options.python, "--environment", options.environment, "--extras", options.extras]
    # Another clone of this repository may lie there already, with somebody's work in it.
    words += ["--local-changes", "keep", "--when-finished", options.when_finished]
    words += ["--region", region] if region else []
    words += ["--volume-id", volume_id, "--at", options.at, "--wait-seconds", "900"] if volume_id else []
    return words + (["--", *options.command] if options.command else [])
