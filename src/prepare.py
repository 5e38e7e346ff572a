"""Make a data set ready for training.

    python -m src.prepare fashion_mnist
    python -m src.prepare fashion_mnist target=/scratch/fashion_mnist source=/datasets/fashion-mnist

Safe to kill, and to start again; where all is done it says so and exits with 0.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from src.config import ConfigError, Problem
from src.config.cli import exit_with
from src.config.errors import did_you_mean

DATA_SETS = ("fashion_mnist",)
EXIT_INTERRUPTED = 130
_KEYS = """keys:
  target=<folder>   where to write it, train/<class>/ and val/<class>/ (default: data/fashion_mnist)
  source=<folder>   where its four idx files lie (default: Debian's package dataset-fashion-mnist, else a download)
"""


class Order(NamedTuple):
    """What was asked for."""

    target: Path
    source: Path | None


def main(arguments: Sequence[str]) -> int:
    """Parse, and write what is missing. Returns the exit code."""
    started = time.monotonic()
    try:
        order = parse(arguments)
        counts = write(order)
    except ConfigError as error:
        exit_with(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    result = {"status": "finished", "target": str(order.target), **counts, "seconds": round(time.monotonic() - started, 1)}
    print(json.dumps(result), flush=True)
    return 0


def parse(arguments: Sequence[str]) -> Order:
    """Read the command line; answer --help here, and exit with 0.

    Raises:
        ConfigError: with every problem at once.
    """
    parser = argparse.ArgumentParser(
        prog="python -m src.prepare",
        description="Make a data set ready for training: an ImageFolder of image files.",
        epilog=_KEYS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("data_set", nargs="?", help=" | ".join(DATA_SETS))
    parser.add_argument("settings", nargs="*", metavar="key=value", help="see below")
    parsed = parser.parse_args(arguments)
    problems = []
    if parsed.data_set is None:
        problems.append(Problem("data set", None, f"none was named. Type one of: {', '.join(DATA_SETS)}."))
    elif parsed.data_set not in DATA_SETS:
        fix = f"no such data set. Known: {', '.join(DATA_SETS)}.{did_you_mean(parsed.data_set, DATA_SETS)}"
        problems.append(Problem("data set", parsed.data_set, fix))
    values: dict[str, str] = {}
    for setting in parsed.settings:
        key, equals, value = setting.partition("=")
        if key not in Order._fields:
            fix = f"no such key. Known: {', '.join(Order._fields)}.{did_you_mean(key, Order._fields)}"
            problems.append(Problem(key, value or None, fix))
        elif not equals or not value:
            problems.append(Problem(key, None, f"has no value. Type {key}=<folder>."))
        values[key] = value
    if problems:
        raise ConfigError("the command line", problems)
    source = values.get("source")
    target = values.get("target", f"data/{parsed.data_set}")
    return Order(Path(target).expanduser(), Path(source).expanduser() if source is not None else None)


def write(order: Order) -> dict[str, int]:
    """Write what is missing. Returns the number of images of every split.

    Raises:
        ConfigError: see src.imagenet.fashion_mnist.prepare.
    """
    from src.imagenet.fashion_mnist import SPLITS, missing_splits, prepare
    from src.imagenet.partial import remove_leftovers

    if missing_splits(order.target):
        from src.tracking.console import counting, start_console

        with counting(start_console(speaks=True), "writing images") as progress:
            prepare(order.target, source=order.source, progress=progress)
    else:
        remove_leftovers(order.target)
        print(f"{order.target} is complete already: nothing to do.", file=sys.stderr, flush=True)
    return {split.name: split.labels.shape[0] for split in SPLITS}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
