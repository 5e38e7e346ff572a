"""The options of `python -m scripts.aws volume <action>`."""

import argparse
import os
from typing import Any

from scripts.aws import options as common

_HOURS = 3600.0


def add_parsers(groups: Any) -> None:
    """Add the group `volume` with its actions."""
    group = groups.add_parser("volume", help="an EBS volume for the data", description="An EBS volume for the data, step by step.")
    actions = group.add_subparsers(dest="action", required=True, metavar="action")
    _add_in_cloud(actions)
    _add_on_instance(actions)


def _add_in_cloud(actions: Any) -> None:
    from scripts.aws import snapshot, status, volume_life

    for action, help_text in (
        ("create", "make an empty volume"),
        ("from-snapshot", "make a volume that holds what a snapshot does"),
    ):
        parser = _leaf(actions, action, help_text, volume_life.create, ids=False)
        parser.add_argument("--zone", required=True, help="the instance's: us-east-1a")
        parser.add_argument("--size-gib", type=int, required=action == "create", help="ImageNet's images need 155; 400 gives room")
        parser.add_argument("--type", default="gp3", help="EBS volume type (default: %(default)s)")
        parser.add_argument("--iops", type=int, help="of gp3: 3000 are in its price")
        parser.add_argument("--throughput", type=int, help="MiB/s, of gp3: 125 are in its price")
        parser.add_argument("--encrypted", action="store_true", help="with the account's default key")
        parser.add_argument("--snapshot", help="snap-...; from-snapshot: default: the newest complete one of the name")
        if action == "from-snapshot":
            parser.add_argument("--from", dest="from_name", type=common.name, help="name of the snapshots (default: --name)")
        common.add_waiting(parser, every=3, at_most=600)
    parser = _leaf(actions, "attach", "attach it to an instance of its zone", volume_life.attach)
    parser.add_argument("--instance", required=True, help="i-...")
    common.add_waiting(parser, every=3, at_most=600)
    parser = _leaf(actions, "detach", "detach it, unmounted", volume_life.detach)
    common.add_waiting(parser, every=3, at_most=600)
    parser = _leaf(actions, "snapshot", "unmount it (on its instance), take a snapshot, wait for it", snapshot.snapshot)
    parser.add_argument("--no-wait", action="store_true", help="do not wait: the same command waits later")
    common.add_waiting(parser, every=15, at_most=24 * _HOURS)
    parser = _leaf(actions, "delete", "delete it, if a complete snapshot holds all that is on it", volume_life.delete)
    parser.add_argument("--confirm", metavar="vol-...", help="the volume's id, typed")
    common.add_waiting(parser, every=3, at_most=600)
    _leaf(actions, "status", "the volume, its snapshots, its device here", status.status)


def _add_on_instance(actions: Any) -> None:
    from scripts.aws import filesystem, mounting, warm

    parser = _leaf(actions, "format", "on the instance, as root: make a file system on an empty volume", filesystem.format_volume)
    _add_device(parser)
    parser.add_argument("--type", choices=("ext4", "xfs"), default="ext4", help="default: %(default)s")
    parser.add_argument("--label", default="imagenet", help="default: %(default)s")
    parser.add_argument("--files", type=int, default=filesystem.IMAGENET_FILES, help="so many must fit (default: %(default)s)")
    parser.add_argument("--state-folder", default=filesystem.STATE_FOLDER, help="for a note that it began (default: %(default)s)")
    common.add_waiting(parser, every=1, at_most=60)
    parser = _leaf(actions, "mount", "on the instance, as root: mount it, now and at every boot", mounting.mount)
    _add_device(parser)
    parser.add_argument("--at", required=True, help="the folder: /data")
    sudo = os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")
    owner = ":".join(filter(None, sudo)) or None
    parser.add_argument("--owner", default=owner, help="user, or user:group, who gets the folder (default: who typed sudo)")
    parser.add_argument("--fstab", default="/etc/fstab", help="default: %(default)s")
    common.add_waiting(parser, every=1, at_most=60)
    _add_device(_leaf(actions, "unmount", "on the instance, as root: unmount it", mounting.unmount))
    parser = _leaf(actions, "warm", "on the instance, as root: read a volume from a snapshot once, so that it is fast", warm.warm)
    _add_device(parser)
    parser.add_argument("--threads", type=int, default=32, help="reads at a time (default: %(default)s)")
    parser.add_argument("--from-gib", type=float, default=0, help="go on from here (default: %(default)s)")
    common.add_waiting(parser, every=10, at_most=0)


def _leaf(actions: Any, action: str, help_text: str, run: Any, *, ids: bool = True) -> argparse.ArgumentParser:
    """One action, that names its volume by --name, or by --volume-id (which needs no call to AWS)."""
    parser: argparse.ArgumentParser = actions.add_parser(
        action, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}."
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--name", type=common.name, help="of the volume: its tag imagenet-trainer:name")
    if ids:
        which.add_argument("--volume-id", type=common.identifier("vol-"), metavar="vol-...", help="instead of the name")
    common.add_common(parser)
    parser.set_defaults(run=run)
    return parser


def _add_device(parser: argparse.ArgumentParser) -> None:
    help_text = "only on instances without NVMe (before Nitro): the attachment's device name, /dev/sdf"
    parser.add_argument("--device-name", help=help_text)
