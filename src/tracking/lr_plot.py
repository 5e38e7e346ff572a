"""Draws learning-rate searches: loss against rate, one range or several, with what is suggested marked by its value."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from src.tracking.plots import save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = ((":", "o"), ("--", "s"), ("-.", "D"))
_HEADROOM = 0.35  # of the fall, above where the loss began: a loss that explodes leaves the picture


class Line(NamedTuple):
    """One range.

    Attributes:
        name: for the legend.
        rates: of each step, rising.
        losses: of each step.
        averages: of the losses up to each step.
        smoothed: the losses' course, without lag.
        marks: what is suggested: label to rate.
    """

    name: str
    rates: Sequence[float]
    losses: Sequence[float]
    averages: Sequence[float]
    smoothed: Sequence[float]
    marks: Mapping[str, float]


def draw_lines(path: Path, lines: Sequence[Line], *, title: str) -> None:
    """Draw the losses faintly, their smoothed course boldly, and the suggestions with their values, over the logarithm of the rate.

    A loss that explodes leaves the picture at its upper edge. Lines without a point are named in the legend.

    Args:
        path: of the PNG; replaced if it is there.
        lines: one or several; each has its own colour.
        title: shown as it is.

    Raises:
        OSError: if the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 5.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    for number, line in enumerate(lines):
        _draw(axes, line, f"C{number}", several=len(lines) > 1)
    axes.set_xscale("log")
    limits = _limits(lines)
    if limits is not None:
        axes.set_ylim(*limits)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="best")
    axes.set_title(title, fontsize="medium", parse_math=False)  # a $ in a name is a $
    save_png(figure, path)


def _draw(axes: "Axes", line: Line, colour: str, *, several: bool) -> None:
    axes.plot(line.rates, line.losses, color=colour, alpha=0.3, linewidth=1, label=None if several else "loss of a step")
    if not several:
        axes.plot(
            line.rates, line.averages, color="0.5", linestyle="--", linewidth=1, label="moving average (lags; stops the search)"
        )
    axes.plot(line.rates, line.smoothed, color=colour, linewidth=2.2, label=line.name if several else "smoothed")
    for (label, rate), (style, marker) in zip(line.marks.items(), _STYLES, strict=False):
        height = float(np.interp(np.log(rate), np.log(line.rates), line.smoothed))
        text = f"{label}: {rate:.3g}"
        own = colour if several else "C3"
        axes.axvline(rate, color=own, linestyle=style, linewidth=1.2, alpha=0.8)
        axes.plot([rate], [height], marker, color=own, markersize=7, markeredgecolor="white", label=text, zorder=5)


def _limits(lines: Sequence[Line]) -> tuple[float, float] | None:
    """Return the lowest and highest loss shown: all of each line up to its minimum, and some room above."""
    lows, highs, tops = [], [], []
    for line in lines:
        if len(line.rates):
            losses, smoothed = np.asarray(line.losses), np.asarray(line.smoothed)
            until = int(smoothed.argmin()) + 1
            lows.append(min(losses.min(), smoothed.min()))
            highs.append(max(losses[:until].max(), smoothed[:until].max()))
            tops.append(max(losses.max(), smoothed.max()))
    if not lows:
        return None
    low, high = float(min(lows)), float(max(highs))
    span = max(high - low, 0.02 * abs(high), 1e-6)
    return low - 0.05 * span, min(float(max(tops)) + 0.05 * span, high + _HEADROOM * span)
