"""The options of `python -m scripts.aws instance <action>`."""

import argparse
import os
import re
from argparse import Namespace
from typing import Any

from scripts.aws import options as common

_TRAINING = "the training, behind --: -- torchrun --standalone --nproc_per_node=4 -m src.train experiment=a40_adam"


def add_parsers(groups: Any) -> None:
    """Add the group `instance` with its actions."""
    group = groups.add_parser("instance", help="an EC2 instance for the training", description="An EC2 instance for the training.")
    actions = group.add_subparsers(dest="action", required=True, metavar="action")
    _add_launch(actions)
    _add_setup(actions)
    _add_life(actions)


def _add_launch(actions: Any) -> None:
    parser = _leaf(actions, "launch", "launch an instance, or find the one of this name, and attach the volume", _launch)
    parser.add_argument("--type", required=True, help="g4dn.xlarge, g5.xlarge, g5.12xlarge, ...")
    parser.add_argument("--image", type=common.identifier("ami-"), metavar="ami-...", help="its image")
    parser.add_argument(
        "--image-parameter", metavar="/aws/service/...", help="instead: a public SSM parameter that names the newest image"
    )
    parser.add_argument("--zone", help="default: the volume's, which it must be")
    parser.add_argument("--volume", type=common.name, help="name of the data volume, attached when the instance runs")
    parser.add_argument("--at", default="/data", type=_path, help="where the volume is mounted (default: %(default)s)")
    parser.add_argument("--key-name", help="of a key pair of this region, for ssh; without one: Session Manager (--profile)")
    parser.add_argument(
        "--security-group",
        type=common.identifier("sg-"),
        action="append",
        help="sg-..., may be repeated (default: the VPC's, which lets nobody in)",
    )
    parser.add_argument("--subnet", type=common.identifier("subnet-"), help="subnet-... (default: the default VPC's)")
    parser.add_argument("--profile", help="name of the IAM instance profile: what the instance itself may do")
    parser.add_argument("--root-gib", type=int, default=100, help="size of the encrypted root disk (default: %(default)s)")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--spot", choices=("persistent",), default="persistent", help="interrupted, it stops and EC2 starts it again (default)"
    )
    kind.add_argument("--on-demand", action="store_true", help="not interrupted, at the full price")
    parser.add_argument("--max-price", help="of a spot instance, dollars an hour (default: the on-demand price)")
    parser.add_argument("--protect", action="store_true", help="with --on-demand: against being terminated by mistake")
    _add_training(parser, user="ubuntu")
    common.add_waiting(parser, every=3, at_most=900)
    parser.add_argument("command", nargs=argparse.REMAINDER, help=_TRAINING)


def _add_setup(actions: Any) -> None:
    from scripts.aws.repository import LOCAL_CHANGES

    parser = _leaf(
        actions, "setup", "on the instance, as root: code, environment, data, and the training as a service", _setup, named=False
    )
    parser.add_argument("--name", type=common.name, help="the instance's, for --when-finished")
    parser.add_argument(
        "--local-changes", choices=LOCAL_CHANGES, default="refuse", help="of an existing clone (default: %(default)s)"
    )
    parser.add_argument("--volume-id", type=common.identifier("vol-"), metavar="vol-...", help="the data volume")
    parser.add_argument("--at", type=_path, help="where it is mounted: /data")
    parser.add_argument("--no-start", action="store_true", help="install the service for the next boot, but do not start it now")
    parser.add_argument("--wait-seconds", type=float, default=60, help="for the volume (default: %(default)s)")
    _add_training(parser, user=os.environ.get("SUDO_USER") or os.environ.get("USER"))
    parser.add_argument("command", nargs=argparse.REMAINDER, help=_TRAINING)


def _add_training(parser: argparse.ArgumentParser, *, user: str | None) -> None:
    """Add what launch passes on to setup."""
    parser.add_argument("--repository", help="where git clones the project from; no password in it")
    parser.add_argument("--branch", help="default: the one that is checked out, else the repository's own")
    parser.add_argument("--commit", help="instead: exactly this one, or a tag")
    parser.add_argument("--folder", type=_path, help="of the clone (default: imagenet-trainer in the user's home)")
    parser.add_argument("--user", default=user, help="who trains (default: %(default)s)")
    parser.add_argument(
        "--environment",
        type=_environment,
        default="venv",
        help="venv (in the clone's .venv), conda:<name>, or none (default: %(default)s)",
    )
    parser.add_argument("--python", default="python3", help="that makes the environment: 3.11 or newer (default: %(default)s)")
    parser.add_argument("--extras", default="nvimgcodec,aws", help="of pyproject.toml, to install (default: %(default)s)")
    parser.add_argument(
        "--when-finished",
        choices=("nothing", "stop", "terminate"),
        default="nothing",
        help="what the instance does with itself; terminate also cancels its spot request (default: %(default)s)",
    )


def _add_life(actions: Any) -> None:
    _leaf(actions, "status", "the instance, its spot request and volumes; on the instance also the training", _life("status"))
    for action, help_text in (
        ("stop", "stop it: its disks stay, and cost; it does not start by itself"),
        ("start", "start it again"),
        ("terminate", "cancel its spot request, and terminate it for ever"),
    ):
        parser = _leaf(actions, action, help_text, _life(action))
        parser.add_argument("--no-wait", action="store_true", help="do not wait for it")
        common.add_waiting(parser, every=3, at_most=900)
        if action == "terminate":
            parser.add_argument("--confirm", metavar="i-...", help="the instance's id, typed")


def _leaf(actions: Any, action: str, help_text: str, run: Any, *, named: bool = True) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        action, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}."
    )
    if named:
        parser.add_argument("--name", type=common.name, required=True, help="of the instance: its tag imagenet-trainer:name")
    common.add_common(parser)
    parser.set_defaults(run=run)
    return parser


def _launch(options: Namespace) -> int:
    from scripts.aws.launch import launch

    return launch(options)


def _setup(options: Namespace) -> int:
    from scripts.aws.setup import setup

    return setup(options)


def _life(action: str) -> Any:
    def run(options: Namespace) -> int:
        from scripts.aws import instance_life

        return int(getattr(instance_life, action)(options))

    return run


def _path(value: str) -> str:
    if not re.fullmatch(r"/[A-Za-z0-9._/+-]*", value):
        raise argparse.ArgumentTypeError(f"{value!r}: an absolute path of letters, digits and ._+- is needed.")
    return value


def _environment(value: str) -> str:
    if value not in ("venv", "none") and not re.fullmatch(r"conda:[A-Za-z0-9._-]+", value):
        raise argparse.ArgumentTypeError(f"{value!r} is none of venv, conda:<name>, none.")
    return value
