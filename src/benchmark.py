"""Measure the trainer against bare code, side by side in one process.

python -m src.benchmark step
"""

import json
import sys
from collections.abc import Sequence

from src.config import ConfigError, Problem
from src.config.cli import exit_with

USAGE = """usage: python -m src.benchmark step [pairs=30] [steps=50]

  step   the training loop beside a bare loop of the same mathematics, batches and type, on a compute-free and on a small model;
         alternating pairs, medians. The last line on stdout is JSON.
"""


def main(arguments: Sequence[str]) -> int:
    """Run one benchmark. Returns the exit code."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE, end="")
        return 0
    name, *options = arguments
    numbers = {"pairs": 30, "steps": 50}
    problems = [] if name == "step" else [Problem("benchmark", name, "no such benchmark. There is: step.")]
    for option in options:
        key, _, value = option.partition("=")
        if key not in numbers or not value.isdecimal() or int(value) < 2:
            problems.append(Problem(key, value or None, "is not pairs=<number> or steps=<number>, of at least 2."))
        else:
            numbers[key] = int(value)
    if problems:
        exit_with(ConfigError("the command line", problems))
    from src.step_benchmark import measure_step

    print(json.dumps(measure_step(pairs=numbers["pairs"], steps=numbers["steps"])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
