"""What all figures share: their size, colours, dashes, axes, limits and legends.

They are small, so that a phone shows them whole with letters that can be read. Each line is told apart by colour and marker, beyond
six by dashes; the colours are Okabe and Ito's (2008, "Color Universal Design") but for one.
"""

import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from src.reporting.curves import Array, Curve
from src.reporting.groups import Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa3377", "#e69f00", "#56b4e9")
INK, GRID = "#1b1f24", "#b8bec6"
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
_WIDTH, _HEIGHT, _ENTRY = 5.3, 3.5, 0.17  # inches; of a line of the legend
_FONT, _DPI = 9.0, 180
_LEGEND_WIDTH = 66
_MOST_MARKED = 25
_LATE = 0.2  # of a line's points: what comes before may lie outside the picture where it would flatten the rest
_FLATTENS = 2.5
BAND_DEVIATIONS = 2
_SHORT_MINUTES = 90


class Line(NamedTuple):
    """How a group is drawn, in every figure alike."""

    label: str
    colour: str
    dashes: Any
    marker: str
    group: Group


def zoomed(lines: Sequence[Array], *, early: Literal["above", "below"]) -> tuple[float, float, bool] | None:
    """Return (low, high, cut): limits between which the later course of every line can be read.

    Args:
        lines: y values in order of time; NaN-free.
        early: where the first values lie: below the later ones (accuracy) or above (loss).
    """
    lines = [line for line in lines if len(line)]
    if not lines:
        return None
    whole = np.concatenate(lines)
    late = np.concatenate([line[min(len(line) - 1, math.ceil(_LATE * len(line))) :] for line in lines])
    low, high = float(whole.min()), float(whole.max())
    late_low, late_high = float(late.min()), float(late.max())
    cut = False
    if early == "below" and high - low > _FLATTENS * (high - late_low) > 0:
        low, cut = late_low, True
    if early == "above" and high - low > _FLATTENS * (late_high - low) > 0:
        high, cut = late_high, True
    room = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    return low - room, high + room, cut


def line_of(number: int, group: Group) -> Line:
    """Return how the group of this number is drawn."""
    colours, count = COLOURS, len(COLOURS)
    dashes = _DASHES[(number // count) % len(_DASHES)] if number >= count else "-"
    label = group.name.encode(errors="replace").decode()  # a folder's name may be no text
    label = f" {label}" if label.startswith("_") else label  # matplotlib keeps a leading _ for itself
    return Line(label, colours[number % count], dashes, _MARKERS[number % len(_MARKERS)], group)


def sheet(*, ratios: Sequence[int] = (1,)) -> tuple[Any, ...]:
    """Return an empty figure and its panels, from top to bottom, whose heights have these ratios."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT * sum(ratios) / ratios[0] * (0.85 if len(ratios) > 1 else 1)), dpi=_DPI)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    for panel in panels:
        style(panel)
    return figure, *panels


def style(axes: "Axes") -> None:
    """Draw no more than needs to be."""
    axes.set_facecolor("none")
    axes.grid(color=GRID, linewidth=0.5, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def draw(axes: "Axes", curve: Curve, line: Line, *, marked: bool, dashes: Any = None) -> Any:
    """Draw a mean and, of two runs or more, its band. Returns what the legend shows."""
    few = marked and len(curve.x) <= _MOST_MARKED
    (artist,) = axes.plot(
        curve.x,
        curve.mean,
        color=line.colour,
        linestyle=dashes or line.dashes,
        marker=line.marker if few else None,
        markersize=3.2,
        linewidth=1.5,
    )
    if curve.n > 1:
        low, high = curve.mean - BAND_DEVIATIONS * curve.sd, curve.mean + BAND_DEVIATIONS * curve.sd
        axes.fill_between(curve.x, low, high, color=line.colour, alpha=0.16, linewidth=0)
    return artist


def draw_unfinished(axes: "Axes", curve: Curve, line: Line) -> Any:
    """Draw one run that has not come to its end, and an x where it stands. Returns what the legend shows."""
    (artist,) = axes.plot(curve.x, curve.mean, color=line.colour, linestyle="--", linewidth=0.9)
    axes.plot(curve.x[-1:], curve.mean[-1:], "x", color=line.colour, markersize=5)
    return artist


def sample(axes: "Axes", dashes: Any) -> Any:
    """Return a line for the legend that is not drawn."""
    (artist,) = axes.plot([], [], color=INK, linestyle=dashes, linewidth=1.2)
    return artist


def bands(lines: Sequence[Line]) -> str:
    """Say what lines and bands are."""
    counts = sorted({len(line.group.finished) for line in lines if len(line.group.finished) > 1})
    if not counts:
        return "One run a group: lines without a band."
    listed = " or ".join(map(str, counts))
    return f"Lines are means over {listed} seeds, bands reach {BAND_DEVIATIONS} sample standard deviations to either side."


def count_steps(axes: "Axes", lines: Sequence[Line]) -> None:
    """Say steps on a second axis where an epoch has the same number of them in all groups."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    an_epoch = {run.steps_per_epoch for line in lines for run in line.group.runs if run.epochs}
    if len(an_epoch) != 1:
        return
    (steps_per_epoch,) = an_epoch

    def to_steps(epoch: Any) -> Any:
        return epoch * steps_per_epoch

    def to_epochs(step: Any) -> Any:
        return step / steps_per_epoch

    steps = axes.secondary_xaxis("top", functions=(to_steps, to_epochs))
    steps.set_xlabel("steps")
    steps.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    steps.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    steps.spines["top"].set_visible(False)


def count_hours(axes: "Axes") -> None:
    """Say hours on the x axis, whose unit they are, or minutes of short runs: 0.031 hours say nothing to anybody."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

    minutes = 60 * float(axes.dataLim.x1)
    if minutes >= _SHORT_MINUTES:
        axes.set_xlabel("hours of training")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8))
        return
    axes.set_xlabel("minutes of training")
    between = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if minutes / step <= 8)
    axes.xaxis.set_major_locator(MultipleLocator(between / 60))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda hours, _: f"{60 * hours:g}"))


def finish(figure: "Figure", axes: "Axes", title: str, entries: Sequence[tuple[Any, str]]) -> None:
    """Put title and legend outside of the axes, where they hide nothing."""
    axes.set_xlim(left=0)
    axes.set_title(title, loc="left", fontsize=_FONT + 1, fontweight="bold")
    labels = ["\n".join(textwrap.wrap(label, _LEGEND_WIDTH)) for _, label in entries]
    rows = sum(label.count("\n") + 1 for label in labels)
    figure.set_figheight(figure.get_figheight() + _ENTRY * rows)
    legend = figure.legend([artist for artist, _ in entries], labels, loc="outside lower left", frameon=False, ncols=1)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a $ in a name is a $
    figure.align_ylabels()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what was laid out once stays, for every kind of file


@contextmanager
def quietly() -> Iterator[None]:
    """Draw in our sizes and colours, whatever the user's matplotlibrc says; signs that the font lacks are boxes, not warnings."""
    import matplotlib

    settings = {
        "font.size": _FONT,
        "font.family": "DejaVu Sans",
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.fontsize": _FONT - 0.5,
    }
    with warnings.catch_warnings(), matplotlib.rc_context(settings):
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield
