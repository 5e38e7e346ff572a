"""Measure, side by side: the loop against bare code and beside a save, augmentation against a step, loaders and preparation.

python -m src.benchmark step
python -m src.benchmark save
python -m src.benchmark augment
python -m src.benchmark loaders data=/datasets/imagenet/val
python -m src.benchmark prepare data=/datasets/imagenet/val
"""

import json
import sys
from collections.abc import Sequence

from src.config import ConfigError, Problem
from src.config.cli import exit_with
from src.config.errors import did_you_mean
from src.loader_benchmark.options import parse_options

USAGE = """usage: python -m src.benchmark step [pairs=30] [steps=50]
       python -m src.benchmark save [saves=5] [batch=8] [size=32]
       python -m src.benchmark augment [pairs=30] [images=32] [size=128]
       python -m src.benchmark loaders data=<folder of class folders> [images=4000] [image_size=224] [batch=128] [workers=auto]
           [pairs=7] [seconds=3] [only=name,name] [max_resolution=500] [quality=90] [plot=loaders.png]
       python -m src.benchmark prepare data=<folder of JPEGs> [images=4000] [pairs=5] [workers=auto] [folder=<where to write>]

  step     the training loop beside a bare loop of the same mathematics, batches and type, on a compute-free and on a small model;
           alternating pairs, medians.
  save     how long training stands still for a checkpoint of ResNet-50 with momentum and an average, how long the write beside it
           takes, and what it costs the steps meanwhile; medians and ranges.
  augment  augmentation of a micro-batch as a share of a ResNet-18 step on as many images, and RandAugment beside torchvision's on
           one image after the other; interleaved rounds, medians.
  loaders  every engine on every source beside FFCV, DALI, torchvision, timm and SPDL as they come, on the same images, each in a
           process of its own, in interleaved rounds. What is not installed is listed and left out.

  prepare  extraction by the stages of a preparation beside tar x, and verification of level 3 beside plain Pillow loops, on the
           same images in interleaved rounds; medians, ranges, ratios, and the hours that the whole ImageNet would take.

  The last line on stdout is JSON.
"""
_BENCHMARKS = ("step", "save", "augment", "loaders", "prepare")


def main(arguments: Sequence[str]) -> int:
    """Run one benchmark. Returns the exit code."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE, end="")
        return 0
    name, *options = arguments
    try:
        match name:
            case "step":
                numbers = _numbers(options, pairs=30, steps=50)
                from src.step_benchmark import measure_step

                result: object = measure_step(pairs=numbers["pairs"], steps=numbers["steps"])
            case "save":
                numbers = _numbers(options, saves=5, batch=8, size=32)
                from src.save_benchmark import measure_save

                result = measure_save(saves=numbers["saves"], batch=numbers["batch"], size=numbers["size"])
            case "augment":
                numbers = _numbers(options, pairs=30, images=32, size=128)
                from src.augment_benchmark import measure_augment

                result = measure_augment(pairs=numbers["pairs"], images=numbers["images"], size=numbers["size"])
            case "loaders":
                asked = parse_options(options)
                from src.loader_benchmark.measure import measure_loaders

                result = measure_loaders(asked)
            case "prepare":
                from src.prepare_benchmark.measure import measure_prepare
                from src.prepare_benchmark.options import parse_prepare

                result = measure_prepare(parse_prepare(options))
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


def _numbers(options: Sequence[str], **numbers: int) -> dict[str, int]:
    """Read key=<number> options over what stands there without them."""
    known = " or ".join(f"{key}=<number>" for key in numbers)
    problems = []
    for option in options:
        key, _, value = option.partition("=")
        if key not in numbers or not value.isdecimal() or int(value) < 2:
            problems.append(Problem(key, value or None, f"is not {known}, of at least 2."))
        else:
            numbers[key] = int(value)
    if problems:
        raise ConfigError("the command line", problems)
    return numbers


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
