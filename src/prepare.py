"""Make a data set ready for training, and prove that it is right.

    python -m src.prepare source=/downloads/imagenet
    python -m src.prepare source=/downloads/imagenet target=/scratch/imagenet dry_run=true
    python -m src.prepare verify target=/scratch/imagenet level=3
    python -m src.prepare fetch=kaggle source=/downloads/kaggle
    python -m src.prepare fashion_mnist

Safe to kill, and to start again: the same command goes on; where all is done it says so and exits with 0.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from src.config import ConfigError, Problem
from src.config.door import EXIT_FAILED, STAGE, door, end_at_sigterm, parser_of
from src.config.errors import did_you_mean
from src.config.prepare import PrepareConfig, load_prepare

DATA_SETS = ("fashion_mnist", "cifar10", "imagenette")
COMMANDS = (*DATA_SETS, "verify")
_VERIFY_KEYS = ("target", "level", "expect", "report", "workers")
_USAGE = """what to type:
  source=<path>     an archive, or a folder with archives or images: recognised by itself, prepared into data/Imagenet
  fetch=<service>   torrent | kaggle | huggingface | s3: download into source=<folder> first
  verify            check what stands in target=<folder>, level=0..3; exit code 1 where anything is not as it should be
  fashion_mnist     target=<folder> (default: data/fashion_mnist), source=<folder> where its four idx files lie (default: Debian's
                    package dataset-fashion-mnist, else a download)
  cifar10, imagenette   likewise, into data/cifar10 and data/imagenette

keys:
"""


class FashionOrder(NamedTuple):
    """What was asked for of Fashion-MNIST, which has no stages."""

    target: Path
    source: Path | None


class Order(NamedTuple):
    """What was asked for.

    Attributes:
        command: "verify", a data set's name, or None: prepare the source.
        config: all keys, those of the command's own defaults among them.
    """

    command: str | None
    config: PrepareConfig


@door
def main(arguments: Sequence[str]) -> int:
    """Parse, and do what is missing. Returns the exit code."""
    started = time.monotonic()
    end_at_sigterm()
    order = parse(arguments)
    if isinstance(order, FashionOrder):
        result: dict[str, Any] = {"status": "finished", "target": str(order.target), **write_fashion(order)}
    else:
        result = _staged(order)
    code = EXIT_FAILED if result["status"] == "failed" else 0
    print(json.dumps({**result, "seconds": round(time.monotonic() - started, 1)}), flush=True)
    return code


def parse(arguments: Sequence[str]) -> Order | FashionOrder:
    """Read the command line; answer --help here, and exit with 0.

    Raises:
        ConfigError: with every problem at once.
    """
    about = "Make a data set ready for training, and prove that it is right."
    words = parser_of("prepare", about, before=_USAGE, metavar="[verify | <data set>] key=value").parse_args(arguments).words
    command = words[0] if words and "=" not in words[0] else None
    settings = words[1:] if command is not None else words
    if command == "fashion_mnist":
        return _fashion_order(settings)
    problems: list[Problem] = []
    if command is not None and command not in COMMANDS:
        fix = f"no such data set. Known: {', '.join(DATA_SETS)}.{did_you_mean(command, COMMANDS)}"
        problems.append(Problem("data set", command, fix))
    if command == "verify":
        unread = [text for text in settings if text.partition("=")[0] not in _VERIFY_KEYS]
        problems += [Problem(text.partition("=")[0], None, f"verify reads only {', '.join(_VERIFY_KEYS)}.") for text in unread]
    if command in DATA_SETS:
        settings = [f"layout={command}", f"target=data/{command}", *settings]
    try:
        config = load_prepare(settings)
    except ConfigError as error:
        problems += error.problems
    else:
        if command is None and config.source is None:
            fix = f"was not given. Type source=<an archive or a folder>, or name one of: {', '.join(DATA_SETS)}, or verify."
            problems.append(Problem("source", None, fix))
    if problems:
        raise ConfigError(STAGE, problems)
    return Order(command, config)


def _fashion_order(settings: Sequence[str]) -> FashionOrder:
    problems = []
    values: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if key not in FashionOrder._fields:
            fix = f"no such key. Known: {', '.join(FashionOrder._fields)}.{did_you_mean(key, FashionOrder._fields)}"
            problems.append(Problem(key, value or None, fix))
        elif not equals or not value:
            problems.append(Problem(key, None, f"has no value. Type {key}=<folder>."))
        values[key] = value
    if problems:
        raise ConfigError(STAGE, problems)
    source = values.get("source")
    target = values.get("target", "data/fashion_mnist")
    return FashionOrder(Path(target).expanduser(), Path(source).expanduser() if source is not None else None)


def write_fashion(order: FashionOrder) -> dict[str, int]:
    """Write what is missing of Fashion-MNIST. Returns the number of images of every split.

    Raises:
        ConfigError: see src.imagenet.fashion.fashion_mnist.prepare.
    """
    from src.imagenet.fashion.fashion_mnist import SPLITS, missing_splits, prepare
    from src.imagenet.fashion.partial import remove_leftovers

    if missing_splits(order.target):
        from src.tracking.console import start_console
        from src.tracking.progress import counting

        with counting(start_console(speaks=True), "writing images") as progress:
            prepare(order.target, source=order.source, progress=progress)
    else:
        remove_leftovers(order.target)
        print(f"{order.target} is complete already: nothing to do.", file=sys.stderr, flush=True)
    return {split.name: split.labels.shape[0] for split in SPLITS}


def _staged(order: Order) -> dict[str, Any]:
    """Run the stages that are not done, or verify. Returns the result for stdout's last line."""
    from src.imagenet.space import StoppedError
    from src.imagenet.stages import prepare, verify_target
    from src.tracking.console import start_console
    from src.tracking.progress import Bars

    bars = Bars(start_console(speaks=True))
    try:
        if order.command == "verify":
            return verify_target(order.config, bars=bars)
        return prepare(order.config, data_set=order.command, bars=bars)
    except StoppedError as error:
        print(error, file=sys.stderr, flush=True)
        return {"status": "failed", "target": order.config.target}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
