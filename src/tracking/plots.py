"""Pictures as PNG files. Drawn without a screen: figures of their own, no pyplot, no state that another picture could see.

matplotlib is imported when something is drawn.
"""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INCHES, _DPI, _MARGIN = 9.0, 120, 0.1
_TITLE_WIDTH = 80
_MOST_TICKS = 8


class Mark(NamedTuple):
    """A moment worth a line: where it lies, in epochs, and what begins or ends there."""

    epoch: float
    label: str


def schedule_figure(
    *,
    title: str,
    epochs: NDArray[np.float64],
    rates: NDArray[np.float64],
    steps_per_epoch: int,
    marks: Sequence[Mark],
    sizes: Sequence[int] | None,
    log_scale: bool,
) -> "Figure":
    """Draw the learning rate over a run, and below it the size of training images where that changes.

    Args:
        title: the run's name, shown as it is.
        epochs: (N,), rising, from 0; fractions of an epoch are steps.
        rates: (N,), the rate at each of them.
        steps_per_epoch: for the second axis, which counts steps.
        marks: lines, told in the legend.
        sizes: side in pixels of each epoch's images, one for each epoch, or None for a single panel.
        log_scale: whether equal factors are equal heights; a rate of 0 cannot be shown then.

    Returns:
        One panel or two, of 1080 px width.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_INCHES, 4.8 if sizes is None else 6.4), dpi=_DPI)
    figure.set_layout_engine("constrained", w_pad=_MARGIN, h_pad=_MARGIN)
    ratios = [1] if sizes is None else [3, 1]
    axes = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    _draw_rates(axes[0], epochs, rates, marks, steps_per_epoch=steps_per_epoch, log_scale=log_scale)
    if sizes is not None:
        _draw_sizes(axes[1], sizes, marks)
    axes[-1].set_xlim(0, epochs[-1] + 1 / steps_per_epoch)
    axes[-1].set_xlabel("epoch")
    figure.suptitle("\n".join(textwrap.wrap(title, _TITLE_WIDTH)), parse_math=False)  # a $ in a name is a $
    figure.align_ylabels()
    return figure


def save_png(figure: "Figure", path: Path) -> None:
    """Write a figure to a file, whole or not at all; what was there is replaced.

    Raises:
        OSError: if it cannot be written.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomically(path, picture.getvalue())


def _draw_rates(
    axes: "Axes",
    epochs: NDArray[np.float64],
    rates: NDArray[np.float64],
    marks: Sequence[Mark],
    *,
    steps_per_epoch: int,
    log_scale: bool,
) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    highest = int(np.argmax(rates))
    end = epochs[-1] + 1 / steps_per_epoch  # the last rate, too, is used for a step
    axes.plot([*epochs, end], [*rates, rates[-1]], color="C0", label=f"{rates[0]:.4g} first, {rates[-1]:.4g} last")
    peak = f"peak {rates[highest]:.4g} at step {round(epochs[highest] * steps_per_epoch):,}"
    axes.plot(epochs[highest], rates[highest], "o", color="C0", label=peak)
    _draw_marks(axes, marks)
    if log_scale:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0, top=1.08 * float(rates[highest]))
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.set_ylabel("learning rate")
    axes.grid(alpha=0.3)

    def to_steps(epoch: Any) -> Any:
        return epoch * steps_per_epoch

    def to_epochs(step: Any) -> Any:
        return step / steps_per_epoch

    steps = axes.secondary_xaxis("top", functions=(to_steps, to_epochs))
    steps.set_xlabel("step")
    steps.xaxis.set_major_locator(MaxNLocator(nbins=_MOST_TICKS, integer=True))
    steps.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.legend(fontsize="small")


def _draw_sizes(axes: "Axes", sizes: Sequence[int], marks: Sequence[Mark]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.step([*range(len(sizes)), len(sizes)], [*sizes, sizes[-1]], where="post", color="C2")
    _draw_marks(axes, marks)
    distinct = sorted(set(sizes))
    room = max(1.0, 0.15 * (distinct[-1] - distinct[0]))
    axes.set_ylim(distinct[0] - room, distinct[-1] + room)
    if len(distinct) <= _MOST_TICKS // 2:
        axes.set_yticks(distinct)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=_MOST_TICKS // 2, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.set_ylabel("image size (px)")
    axes.grid(alpha=0.3)


def _draw_marks(axes: "Axes", marks: Sequence[Mark]) -> None:
    for number, mark in enumerate(marks):
        axes.axvline(mark.epoch, color=f"C{number + 3}", linestyle="--", linewidth=1, label=f"{mark.label}: epoch {mark.epoch:g}")


def _plain(value: float, _position: Any) -> str:
    return f"{value:.6g}"
