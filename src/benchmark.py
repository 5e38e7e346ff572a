"""Measure, side by side: the training loop against bare code, and every loader against its stock peers.

python -m src.benchmark step
python -m src.benchmark loaders data=/datasets/imagenet/val
"""

import json
import sys
from collections.abc import Sequence

from src.config import ConfigError, Problem
from src.config.cli import exit_with
from src.config.errors import did_you_mean
from src.loader_benchmark.options import parse_options

USAGE = """usage: python -m src.benchmark step [pairs=30] [steps=50]
       python -m src.benchmark loaders data=<folder of class folders> [images=4000] [image_size=224] [batch=128] [workers=auto]
           [pairs=7] [seconds=3] [only=name,name] [max_resolution=500] [quality=90] [plot=loaders.png]

  step     the training loop beside a bare loop of the same mathematics, batches and type, on a compute-free and on a small model;
           alternating pairs, medians.
  loaders  every engine on every source beside FFCV, DALI, torchvision, timm and SPDL as they come, on the same images, each in a
           process of its own, in interleaved rounds. What is not installed is listed and left out.

  The last line on stdout is JSON.
"""
_BENCHMARKS = ("step", "loaders")


def main(arguments: Sequence[str]) -> int:
    """Run one benchmark. Returns the exit code."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE, end="")
        return 0
    name, *options = arguments
    try:
        match name:
            case "step":
                result = _step(options)
            case "loaders":
                asked = parse_options(options)
                from src.loader_benchmark.measure import measure_loaders

                result = measure_loaders(asked)
            case _:
                fix = f"no such benchmark.{did_you_mean(name, _BENCHMARKS)} There are: {', '.join(_BENCHMARKS)}."
                raise ConfigError("the command line", [Problem("benchmark", name, fix)])
    except ConfigError as error:
        exit_with(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(json.dumps(result))
    return 0


def _step(options: Sequence[str]) -> object:
    numbers = {"pairs": 30, "steps": 50}
    problems = []
    for option in options:
        key, _, value = option.partition("=")
        if key not in numbers or not value.isdecimal() or int(value) < 2:
            problems.append(Problem(key, value or None, "is not pairs=<number> or steps=<number>, of at least 2."))
        else:
            numbers[key] = int(value)
    if problems:
        raise ConfigError("the command line", problems)
    from src.step_benchmark import measure_step

    return measure_step(pairs=numbers["pairs"], steps=numbers["steps"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
