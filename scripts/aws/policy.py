"""The least IAM policy that these commands need. Printed only: no command touches IAM."""

import importlib.util
import json
import sys
from argparse import Namespace
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from scripts.aws.calls import NAME_TAG

# Every one has ACTIONS: the actions of the calls that it makes.
MODULES = ("volume_life", "snapshot", "status", "launch", "instance_life", "setup")
_TAGGING = "ec2:CreateTags"
_READING = ("Describe", "Get", "List")
_CREATING = ("Create", "Run")
# Only on what has our tag, whoever made the rest of the account. Creating has nothing yet that could have one.
_ON_TAGGED = ("AttachVolume", "DetachVolume", "DeleteVolume", "StopInstances", "StartInstances", "TerminateInstances")


def add_parsers(groups: Any) -> None:
    """Add the group `policy`."""
    parser = groups.add_parser(
        "policy", help="the least IAM policy that these commands need", description="Print an IAM policy as JSON."
    )
    parser.add_argument("--for", dest="modules", choices=("volume", "instance", "all"), default="all", help="default: %(default)s")
    parser.set_defaults(run=show)


def show(options: Namespace) -> int:
    """Print it."""
    sys.stdout.write(json.dumps(policy(actions(options.modules)), indent=2) + "\n")
    return 0


def actions(kind: str) -> set[str]:
    """All actions of the volume commands, of the instance commands, or of both."""
    chosen = {"volume": MODULES[:3], "instance": MODULES[3:], "all": MODULES}[kind]
    names = (f"scripts.aws.{name}" for name in chosen)
    return {action for name in names if importlib.util.find_spec(name) for action in getattr(import_module(name), "ACTIONS", ())}


def policy(wanted: Iterable[str]) -> dict[str, Any]:
    """The policy of these actions: reading anywhere, creating anywhere, changing only what has our tag."""
    names = sorted(set(wanted))
    reading = [name for name in names if name.partition(":")[2].startswith(_READING)]
    tagged = [name for name in names if name.partition(":")[2] in _ON_TAGGED]
    making = [name for name in names if name not in (*reading, *tagged, _TAGGING)]
    ours = {"StringLike": {f"aws:ResourceTag/{NAME_TAG}": "*"}}
    statements: list[dict[str, Any]] = [
        {"Sid": "Look", "Effect": "Allow", "Action": reading, "Resource": "*"},
        {"Sid": "Make", "Effect": "Allow", "Action": making, "Resource": "*"},
        {"Sid": "ChangeOurs", "Effect": "Allow", "Action": tagged, "Resource": "*", "Condition": ours},
    ]
    if _TAGGING in names:  # what could tag anything could make anything ours, and then delete it
        calls = [name.partition(":")[2] for name in making]
        creating = {"StringEquals": {"ec2:CreateAction": [call for call in calls if call.startswith(_CREATING)]}}
        statements += [
            {"Sid": "TagWhatIsMade", "Effect": "Allow", "Action": [_TAGGING], "Resource": "*", "Condition": creating},
            {"Sid": "TagOurs", "Effect": "Allow", "Action": [_TAGGING], "Resource": "*", "Condition": ours},
        ]
    return {"Version": "2012-10-17", "Statement": [statement for statement in statements if statement["Action"]]}
