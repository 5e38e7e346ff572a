"""What stands behind `python -m src.benchmark loaders`: parsed, checked, every problem told at once. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from src.config import ConfigError, Problem
from src.config.errors import did_you_mean
from src.loader_benchmark.catalogue import CATALOGUE

STAGE = "the command line"
_LEAST = {"images": 3, "image_size": 8, "batch": 2, "workers": 1, "pairs": 1, "max_resolution": 16, "quality": 1, "seconds": 0}
_MOST = {"quality": 100}
_NAMES = ("data", *_LEAST, "only", "plot")


class Options(NamedTuple):
    """What is measured.

    Attributes:
        data: a folder of class folders with images.
        images: they are repeated to this number.
        image_size: pixels of a batch's images.
        batch: images.
        workers: CPUs that everybody may use, and threads or processes that decode; None: all that this process may use.
        pairs: rounds; in each, every contender makes one pass.
        only: names of contenders; empty: all.
        max_resolution: of the prepared images' longest side, in pixels.
        quality: of the prepared JPEGs.
        seconds: that a pass lasts at least, in whole epochs.
        plot: a PNG to write.
    """

    data: Path
    images: int = 4000
    image_size: int = 224
    batch: int = 128
    workers: int | None = None
    pairs: int = 7
    only: tuple[str, ...] = ()
    max_resolution: int = 500
    quality: int = 90
    seconds: int = 3
    plot: Path | None = None


def parse_options(arguments: Sequence[str]) -> Options:
    """Parse `key=value` arguments.

    Raises:
        ConfigError: with every problem.
    """
    given: dict[str, object] = {}
    problems: list[Problem] = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in _NAMES:
            fix = f"no such option.{did_you_mean(key, _NAMES)} There are: {', '.join(_NAMES)}."
            problems.append(Problem(key, value or None, fix))
        elif key in _LEAST:
            if key == "workers" and value == "auto":
                continue
            number = int(value) if value.isascii() and value.isdecimal() else -1
            most = _MOST.get(key, 10**9)
            if not _LEAST[key] <= number <= most:
                upper = f" and at most {most}" if key in _MOST else ""
                fix = f"must be a whole number of at least {_LEAST[key]}{upper}{', or auto' if key == 'workers' else ''}."
                problems.append(Problem(key, value, fix))
            given[key] = number
        elif key == "only":
            names = tuple(dict.fromkeys(name for name in value.split(",") if name))
            for name in names:
                if name not in CATALOGUE:
                    fix = f"no such contender.{did_you_mean(name, CATALOGUE)} There are: {', '.join(CATALOGUE)}."
                    problems.append(Problem("only", name, fix))
            if not names:
                problems.append(Problem("only", value, "names nobody. Leave it out to measure all."))
            given[key] = names
        else:
            given[key] = Path(value).expanduser()
    problems += _path_problems(given)
    if problems:
        raise ConfigError(STAGE, problems)
    options = Options(**given)  # type: ignore[arg-type]
    if options.images < 3 * options.batch:
        fix = f"an epoch needs three batches at least. Set images={3 * options.batch} or more, or a smaller batch."
        raise ConfigError(STAGE, [Problem("images", options.images, fix)])
    return options


def _path_problems(given: dict[str, object]) -> list[Problem]:
    problems = []
    data, plot = given.get("data"), given.get("plot")
    if not isinstance(data, Path):
        problems.append(Problem("data", None, "is missing: data=<a folder of class folders with images>."))
    elif not data.is_dir():
        problems.append(Problem("data", str(data), "no such folder. Name one that holds <class>/<image>."))
    if isinstance(plot, Path):
        if plot.suffix != ".png":
            problems.append(Problem("plot", str(plot), "is no PNG. Name a file that ends in .png."))
        elif not plot.parent.is_dir():
            problems.append(Problem("plot", str(plot), f"there is no folder {plot.parent}. Make it first."))
    return problems
