"""Find a learning rate: the loss while the rate grows step by step, in one range or several.

    python -m src.lr_finder experiment=demo
    python -m src.lr_finder data.path=/datasets/imagenet optim=adam start_lr=1e-6,1e-4 end_lr=1,0.1 num_iter=200
    torchrun --nproc_per_node=4 -m src.lr_finder data=ffcv precision=bf16

It writes <runs_dir>/lr_finder/<run_name>/: lr.csv, range-1.png, range-2.png, ..., and ranges.png with all. Nothing is trained.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from src.config import ConfigError, Problem
from src.config.cli import parse
from src.config.door import STAGE, door
from src.config.lr_finder import FinderOrder, load_finder
from src.config.overrides import CONF_DIR

if TYPE_CHECKING:
    from rich.table import Table

    from src.lr_search import Found
    from src.session import Place
    from src.training.lr_curve import Point

MODULE = "src.lr_finder"


@door
def main(arguments: Sequence[str]) -> int:
    """Parse, validate, and search. Returns the exit code."""
    line = parse(arguments, door=MODULE, about=about())
    if line.multirun:
        fix = "does not exist here. Several ranges are lists: start_lr=1e-7,1e-5 end_lr=10,1."
        raise ConfigError(STAGE, [Problem("--multirun", None, fix)])
    order = load_finder(line.overrides, config_dir=line.config_dir)
    from src.relaunch import relaunch_on_all_gpus  # torch is loaded only now: what is wrong was said at once

    relaunch_on_all_gpus(MODULE, arguments)
    return run(order)


def about() -> str:
    """Return what --help says first."""
    keys = (CONF_DIR / "lr_finder.yaml").read_text()
    return f"Find a learning rate for a training. Its own keys, besides all of src.train's:\n\n{keys}"


def run(order: FinderOrder) -> int:
    """Search in this process, which is one rank."""
    from loguru import logger

    from src.batch import DataError
    from src.lr_search import find
    from src.preflight import preflight
    from src.session import exit_code_after, joined, open_sources
    from src.tracking.console import say_result

    config = order.config
    with joined(config) as place:
        try:
            with preflight(config, place, open_sources) as ready, telling(order, place) as told:
                logger.info("searching: optim.peak_lr, the schedule and epochs are not used; all else is as in training")
                found = find(order, place, ready, told=told)
        except (ConfigError, DataError) as error:
            return exit_code_after(error, place)
        if place.world.leads:
            place.console.print(table(found))
            for number, suggestion in enumerate(found.suggestions, start=1):
                if suggestion.remark:
                    logger.warning(f"range {number}: {suggestion.remark}")
            logger.info(f"plots and lr.csv are in {found.folder}")
            say_result(as_json(found))
        return 0


@contextmanager
def telling(order: FinderOrder, place: "Place") -> Iterator[Callable[[int, int, "Point"], None]]:
    """Show how far the search is: a bar on a terminal, every tenth of a range as a line in a log."""
    from loguru import logger

    from src.tracking.progress import counting

    if not place.world.leads:
        yield lambda number, done, point: None
        return
    steps = [within.num_iter for within in order.ranges]
    with counting(place.console, "trying rates") as bar:

        def told(number: int, done: int, point: "Point") -> None:
            bar(sum(steps[:number]) + done, sum(steps))
            if not place.console.is_terminal and (done * 10) // steps[number] > ((done - 1) * 10) // steps[number]:
                what = f"range {number + 1} of {len(steps)}, step {done:,} of {steps[number]:,}"
                logger.info(f"{what}: lr {point.lr:.3g}  loss {point.loss:.4f}  average {point.average:.4f}")

        yield told


def table(found: "Found") -> "Table":
    """Lay the suggestions out."""
    from rich.table import Table

    shown = Table(title="suggested learning rates", title_justify="left")
    for name in ("range", "steps", "ended", "steepest descent", "a tenth of the minimum's"):
        shown.add_column(name, justify="left" if name in ("range", "ended") else "right")
    for curve, suggestion in zip(found.curves, found.suggestions, strict=True):
        rates = (f"{rate:.3g}" if rate is not None else "-" for rate in (suggestion.steepest, suggestion.tenth_of_minimum))
        within = curve.range
        shown.add_row(f"{within.start_lr:g} to {within.end_lr:g}", f"{len(curve.points)} of {within.num_iter}", curve.ended, *rates)
    return shown


def as_json(found: "Found") -> str:
    """Return stdout's last line."""
    ranges = [
        {
            **curve.range._asdict(),
            "steps": len(curve.points),
            "ended": curve.ended,
            "steepest": suggestion.steepest,
            "tenth_of_minimum": suggestion.tenth_of_minimum,
            "remark": suggestion.remark or None,
        }
        for curve, suggestion in zip(found.curves, found.suggestions, strict=True)
    ]
    return json.dumps({"status": "finished", "folder": str(found.folder), "suggestions": ranges})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
