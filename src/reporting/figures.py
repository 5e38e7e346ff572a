"""The figures: accuracy against epochs and hours, losses, learning rate, throughput. Drawn without a screen and without pyplot."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from src.reporting.curves import mean_curve, mean_windows
from src.reporting.groups import Group
from src.reporting.records import Epoch, Run
from src.reporting.sheet import (
    BAND_DEVIATIONS,
    Line,
    bands,
    count_hours,
    count_steps,
    draw,
    draw_unfinished,
    finish,
    line_of,
    quietly,
    sample,
    sheet,
    zoomed,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_POINTS = 400


class Drawn(NamedTuple):
    """A figure with what is to be said of it.

    Attributes:
        name: of its file, without suffix.
        title: in words.
        caption: what it shows and how it is to be read.
        alt: its content in words, for who cannot see it.
        figure: matplotlib's.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: "Figure"


def draw_all(groups: Sequence[Group]) -> list[Drawn]:
    """Draw what there is something to draw of. All groups have the same task.

    Args:
        groups: in the order of the colours.
    """
    with quietly():
        lines = [line_of(number, group) for number, group in enumerate(groups)]
        drawn = (
            _accuracy(lines, "epochs"),
            _accuracy(lines, "hours"),
            _losses(lines),
            _rates(lines),
            _throughput(lines),
        )
        return [figure for figure in drawn if figure is not None]


def _accuracy(lines: Sequence[Line], against: Literal["epochs", "hours"]) -> Drawn | None:
    def x(run: Run, epoch: Epoch) -> float:
        return epoch.elapsed / 3600 if against == "hours" else epoch.step / run.steps_per_epoch

    figure, axes = sheet()
    legend, words = [], []
    drawn, tops, unfinished = [], [0.0], 0
    for line in lines:
        begun = [mean_curve([run], x, lambda epoch: epoch.val_acc1) for run in line.group.runs if not run.finished]
        begun = [curve for curve in begun if len(curve.x)]
        dashed = [draw_unfinished(axes, curve, line) for curve in begun]
        unfinished += len(dashed)
        curve = mean_curve(line.group.finished, x, lambda epoch: epoch.val_acc1)
        if len(curve.x):
            last = f"{curve.mean[-1]:.2f}" + (f" ± {curve.sd[-1]:.2f}" if curve.n > 1 else "")
            legend.append((draw(axes, curve, line, marked=True), f"{line.label}: {last} % (n = {curve.n})"))
            words.append(f"{line.group.name} ends at {last} % (n = {curve.n})")
            drawn += [curve.mean] if curve.n < 2 else [curve.mean, curve.mean - BAND_DEVIATIONS * curve.sd]
            tops += [] if curve.n < 2 else [float((curve.mean + BAND_DEVIATIONS * curve.sd).max())]
        elif dashed:
            legend.append((dashed[0], f"{line.label}: no finished run"))
            words.append(f"{line.group.name} has no finished run")
        drawn += [curve.mean for curve in begun]
    limits = zoomed(drawn, early="below")
    if limits is None:
        return None
    axes.set_ylim(max(0.0, limits[0]), min(100.5, max(limits[1], *tops)))
    axes.set_ylabel("validation top-1 accuracy (%)")
    if unfinished:
        legend.append((sample(axes, "--"), "dashed, ends with x: an unfinished run"))
    if against == "epochs":
        axes.set_xlabel("epochs")
        count_steps(axes, lines)
    else:
        count_hours(axes)
    title = f"Validation accuracy against {'epochs' if against == 'epochs' else 'time of training'}"
    finish(figure, axes, title, legend)
    notes = [bands(lines)]
    notes += ["Time is that of training alone, without evaluation; the mean over the seeds."] if against == "hours" else []
    notes += ["The first evaluations lie below the picture."] if limits[2] else []
    return Drawn(f"accuracy_{against}", title, " ".join(notes), f"{title}. {'; '.join(words)}.", figure)


def _losses(lines: Sequence[Line]) -> Drawn | None:
    def x(run: Run, epoch: Epoch) -> float:
        return epoch.step / run.steps_per_epoch

    figure, axes = sheet()
    legend, shown, words = [], [], []
    for line in lines:
        runs = line.group.finished or line.group.runs[:1]
        training = mean_curve(runs, x, lambda epoch: epoch.train_loss)
        validation = mean_curve(runs, x, lambda epoch: epoch.val_loss)
        if len(training.x):
            draw(axes, training, line, marked=False, dashes=(0, (4, 1.5)))
            shown.append(training.mean)
        if len(validation.x):
            artist = draw(axes, validation, line, marked=True)
            legend.append((artist, line.label))
            shown.append(validation.mean)
            words.append(f"{line.group.name} ends at a validation loss of {validation.mean[-1]:.4f}")
    limits = zoomed(shown, early="above")
    if limits is None:
        return None
    axes.set_ylim(max(0.0, limits[0]), limits[1])
    axes.set_ylabel("loss (nats)")
    axes.set_xlabel("epochs")
    count_steps(axes, lines)
    legend += [(sample(axes, "-"), "solid: validation"), (sample(axes, (0, (4, 1.5))), "dashed: training")]
    caption = (
        "The training loss is what was minimised: with label smoothing, mixed images and augmentation where the run has them, "
    )
    caption += f"so it may lie above the validation loss, which is plain cross-entropy. {bands(lines)}"
    caption += " The first epochs lie above the picture." if limits[2] else ""
    finish(figure, axes, "Training and validation loss", legend)
    return Drawn("loss", "Training and validation loss", caption, f"Losses against epochs. {'; '.join(words)}.", figure)


def _rates(lines: Sequence[Line]) -> Drawn | None:
    figure, axes = sheet()
    legend, words = [], []
    for line in lines:
        runs = [run for run in (line.group.finished or line.group.runs)[:1] if run.epochs]
        curve = mean_windows(runs, lambda window: window.lr, _MOST_POINTS)
        if len(curve.x):
            artist = draw(axes, curve, line, marked=False)
            legend.append((artist, f"{line.label}: highest {curve.mean.max():.4g}"))
            words.append(f"{line.group.name}: highest {curve.mean.max():.4g}, last {curve.mean[-1]:.4g}")
    if not legend:
        return None
    axes.set_ylim(bottom=0)
    axes.set_ylabel("learning rate")
    axes.set_xlabel("epochs")
    count_steps(axes, lines)
    finish(figure, axes, "Learning rate", legend)
    caption = "At the logged steps of one run of each group; it is the same for every seed."
    return Drawn("learning_rate", "Learning rate", caption, f"Learning rate against epochs. {'; '.join(words)}.", figure)


def _throughput(lines: Sequence[Line]) -> Drawn | None:
    from matplotlib.ticker import FuncFormatter

    figure, axes, below = sheet(ratios=(2, 1))
    legend, words = [], []
    for line in lines:
        runs = [run for run in line.group.finished or line.group.runs[:1] if run.epochs]
        speed = mean_windows(runs, lambda window: window.images_per_second, _MOST_POINTS)
        wait = mean_windows(runs, lambda window: 100 * window.data_wait, _MOST_POINTS)
        if len(speed.x):
            artist = draw(axes, speed, line, marked=False)
            middle = float(np.median(speed.mean))
            legend.append((artist, f"{line.label}: median {middle:,.0f} images/s"))
            words.append(f"{line.group.name}: median {middle:,.0f} images/s")
        if len(wait.x):
            draw(below, wait, line, marked=False)
    if not legend:
        return None
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylabel("images/s")
    below.set_ylim(bottom=0, top=min(100.0, max(10.0, 1.1 * below.get_ylim()[1])))
    below.set_ylabel("waiting (%)")
    below.set_xlabel("epochs")
    finish(figure, axes, "Throughput, and the share of time spent waiting for data", legend)
    caption = f"Below: the share of training time in which the loop waited for the next batch. {bands(lines)}"
    return Drawn("throughput", "Throughput", caption, f"Images a second against epochs. {'; '.join(words)}.", figure)
