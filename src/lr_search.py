"""The learning-rate search: ranges of rates, each tried from the same state with the loop's own step.

In a notebook, with a run as src/train_run.py builds it:

    curves = search(run, [LrRange(1e-7, 10.0, 100)], smoothing=0.05, diverge=4.0)
    print(suggest(curves[0], skip_first=10, skip_last=5, window_decades=1.0))
"""

import csv
import io
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from src import distributed
from src.batch import Batch
from src.build import build_run
from src.config import ConfigError, Problem
from src.config.identity import run_name
from src.config.lr_finder import FinderOrder, LrRange
from src.files import write_atomically
from src.first_batch import Ready
from src.session import Place
from src.tracking.lr_plot import Line, draw_lines
from src.training.loop import train_step
from src.training.lr_curve import Curve, Ended, MovingAverage, Point, Suggestion, lr_of, suggest
from src.training.run import Run
from src.training.stopping import StopRequests
from src.training.untouched import untouched

FOLDER = "lr_finder"
Told = Callable[[int, int, Point], None]  # (range, steps done in it, the last one); ranges count from 0


class Found(NamedTuple):
    """What a search found, and where it is written down."""

    folder: Path
    curves: tuple[Curve, ...]
    suggestions: tuple[Suggestion, ...]


def find(order: FinderOrder, place: Place, ready: Ready, *, told: Told) -> Found:
    """Build the run, search every range, and write lr.csv and the plots. Every rank must call it.

    Raises:
        ConfigError: if the folder cannot be made.
        DataError: if an image cannot be read.
    """
    config, finder = order.config, order.finder
    folder = Path(config.runs_dir).expanduser() / FOLDER / run_name(config)
    distributed.from_rank_0(lambda: _make(folder, config.runs_dir))
    run = build_run(
        config,
        place.world,
        place.device,
        train=ready.train,
        val=ready.val,
        engines=ready.engines,
        trackers=[],
        requests=StopRequests(folder / "STOP"),
    )
    curves = search(run, order.ranges, smoothing=finder.smoothing, diverge=finder.diverge, told=told)
    run.close()
    suggestions = [
        suggest(curve, skip_first=finder.skip_first, skip_last=finder.skip_last, window_decades=finder.window_decades)
        for curve in curves
    ]
    found = Found(folder, tuple(curves), tuple(suggestions))
    distributed.from_rank_0(lambda: _write(found))
    return found


def search(run: Run, ranges: Sequence[LrRange], *, smoothing: float, diverge: float, told: Told | None = None) -> list[Curve]:
    """Try each range with the loop's own step, from the run's present state, and leave the run as it was, bit for bit.

    Every rank must call it; all get the same curves. The images are those of the run's present step and on, over as many epochs as
    it takes, the same for each range. Schedule, optim.peak_lr, epochs and average play no part.

    Args:
        run: as build_run made it, at any step.
        ranges: the rates.
        smoothing: share of the newest loss in the moving average, in (0, 1].
        diverge: a range ends where that average exceeds so many times its best.
        told: called after each step.

    Raises:
        DataError: if an image cannot be read. The run is as it was then, too.
    """
    return [
        _search_range(run, within, number, smoothing=smoothing, diverge=diverge, told=told) for number, within in enumerate(ranges)
    ]


def _search_range(run: Run, within: LrRange, number: int, *, smoothing: float, diverge: float, told: Told | None) -> Curve:
    points: list[Point] = []
    average, best, first = MovingAverage(smoothing), math.inf, run.step
    ended: Ended = "at end_lr"
    with untouched(run), closing(_endless(run)) as batches:
        run.lr_at = lambda step: lr_of(within, step - first)
        for done in range(1, within.num_iter + 1):
            train_step(run, batches)
            run.step += 1
            loss = _mean_loss(run)
            if not math.isfinite(loss):
                ended = "not finite"
                break
            points.append(Point(run.lr_at(run.step - 1), loss, average.add(loss)))
            if told is not None:
                told(number, done, points[-1])
            best = min(best, points[-1].average)
            if points[-1].average > diverge * best:
                ended = "diverged"
                break
    return Curve(within, tuple(points), ended)


def _endless(run: Run) -> Generator[Batch, None, None]:
    """Yield this rank's micro-batches from run.step on, epoch after epoch."""
    while True:
        yield from run.epoch_batches()


def _mean_loss(run: Run) -> float:
    """Return the last step's loss over all ranks. It waits for the device and for the other ranks: a search is no training."""
    loss = run.meter.window().loss
    return distributed.from_rank_0(lambda: loss)  # one number decides for all where to stop


def _make(folder: Path, runs_dir: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fix = f"{folder} cannot be made ({error.strerror}). Set runs_dir to a folder that can be written."
        raise ConfigError("the search's folder", [Problem("runs_dir", runs_dir, fix)]) from error


def _write(found: Found) -> None:
    """Write lr.csv, a plot for each range and one of all; an earlier search's plots go."""
    for old in found.folder.glob("range*.png"):
        old.unlink()
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["range", "lr", "loss", "average", "smoothed"])
    for number, (curve, suggestion) in enumerate(zip(found.curves, found.suggestions, strict=True), start=1):
        table.writerows([number, *point, height] for point, height in zip(curve.points, suggestion.smoothed, strict=True))
    write_atomically(found.folder / "lr.csv", text.getvalue().encode())
    lines = [_line(curve, suggestion) for curve, suggestion in zip(found.curves, found.suggestions, strict=True)]
    for number, line in enumerate(lines, start=1):
        draw_lines(found.folder / f"range-{number}.png", [line], title=f"range {number}: {line.name}")
    draw_lines(found.folder / "ranges.png", lines, title=found.folder.name)


def _line(curve: Curve, suggestion: Suggestion) -> Line:
    within, points = curve.range, curve.points
    name = f"{within.start_lr:g} to {within.end_lr:g} in {within.num_iter} steps"
    if curve.ended != "at end_lr":
        name += f", {curve.ended}"
    marks = {"steepest descent": suggestion.steepest, "a tenth of the minimum's": suggestion.tenth_of_minimum}
    given = {label: rate for label, rate in marks.items() if rate is not None}
    return Line(
        name,
        rates=[point.lr for point in points],
        losses=[point.loss for point in points],
        averages=[point.average for point in points],
        smoothed=suggestion.smoothed,
        marks=given,
    )
