"""What stands on the command line besides overrides: --help, --cfg, --run-dir, --multirun, --config-dir."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import yaml

from src.config.compose import compose_tree, expand_sweep, load
from src.config.errors import ConfigError, Problem
from src.config.identity import run_dir
from src.config.overrides import groups
from src.config.secrets import hide_in_tree

EXAMPLES = """five commands to begin with:
  python -m src.train experiment=demo                         a real model on real data, a few minutes on a CPU
  python -m src.train data.path=/datasets/imagenet dry_run=true    check everything, print the plan, train nothing
  torchrun --nproc_per_node=4 -m src.train model=resnet50 optim=adam  four GPUs; run again to resume
  python -m src.train data=synthetic debug=fast               every part of a run in a minute, no data needed
  python -m src.train --multirun seed=0,1,2 experiment=demo   one run for each seed
"""

STAGE = "the command line"


class CommandLine(NamedTuple):
    """What was asked for."""

    overrides: list[str]
    multirun: bool
    config_dir: Path | None


def parse(arguments: Sequence[str], *, door: str, about: str, trains: bool = False) -> CommandLine:
    """Split the command line; answer --help, --cfg and --run-dir here, and exit with 0.

    Args:
        arguments: without the program's name.
        door: the module, such as `src.train`.
        about: one sentence for --help.
        trains: whether the door has runs, and so --run-dir.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {door}",
        description=about,
        epilog=f"{_describe_groups()}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="a group's choice (optim=adam) or a value (seed=1)")
    parser.add_argument("--cfg", choices=["job"], help="print the composed configuration and stop")
    if trains:
        parser.add_argument(
            "--run-dir", action="store_true", help="print the folder that the run has, and stop: scripts ask for it"
        )
    parser.add_argument("--multirun", "-m", action="store_true", help="run every combination of the values given as a,b,c")
    parser.add_argument("--config-dir", type=Path, help="a folder with groups of your own, searched beside conf/")
    parsed, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        exit_with(ConfigError(STAGE, [Problem(text, None, _without_dashes(text, door)) for text in unknown]))
    if parsed.config_dir is not None and not parsed.config_dir.is_dir():
        exit_with(
            ConfigError(STAGE, [Problem("--config-dir", str(parsed.config_dir), "no such folder. Make it, or correct its path.")])
        )
    if parsed.cfg:
        try:
            tree = compose_tree(parsed.overrides, config_dir=parsed.config_dir)
        except ConfigError as error:
            exit_with(error)
        print(yaml.safe_dump(hide_in_tree(tree), sort_keys=False), end="")
        sys.exit(0)
    if trains and parsed.run_dir:
        _say_run_dirs(parsed.overrides, parsed.config_dir, multirun=parsed.multirun)
    return CommandLine(parsed.overrides, parsed.multirun, parsed.config_dir)


def _say_run_dirs(overrides: list[str], config_dir: Path | None, *, multirun: bool) -> NoReturn:
    """Print the absolute path of the run's folder, of a sweep one a line, and exit with 0."""
    try:
        points = expand_sweep(overrides, config_dir=config_dir) if multirun else [overrides]
        folders = [run_dir(load(point, config_dir=config_dir)) for point in points]
    except ConfigError as error:
        exit_with(error)
    print(*(folder.absolute() for folder in folders), sep="\n")
    sys.exit(0)


def exit_with(error: ConfigError) -> NoReturn:
    """Print the message to stderr and exit with 2."""
    print(error, file=sys.stderr, flush=True)
    sys.exit(2)


def _without_dashes(text: str, door: str) -> str:
    bare = text.lstrip("-")
    return f"no such option. Keys have no dashes: type {bare}." if "=" in bare else f"no such option. See python -m {door} --help."


def _describe_groups() -> str:
    lines = ["groups (group=choice):"]
    for group, choices in groups().items():
        more = " | any torchvision classifier by name | timm/<name>" if group == "model" else ""
        lines.append(f"  {group:<11}{' | '.join(choices)}{more}")
    return "\n".join([*lines, "  every other key: --cfg job prints them all with their values, conf/ says what they mean"])
