"""A confusion matrix as a picture: with names and numbers for few classes, a pixel a cell for many."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Box = tuple[float, float, float, float]  # left, bottom, width, height, as shares of the figure
_DPI = 100
_NUMBERS, _NAMES = 20, 60  # classes up to which numbers stand in the cells, and names at the sides
_PAIRS = 24
_NAME_WIDTH = 22
_LEAST_PIXELS = 1000  # of the matrix's side: not less than a pixel a class of ImageNet's


def confusion_figure(
    *, title: str, confusion: NDArray[np.int64], names: Sequence[str], pairs: Sequence[tuple[str, str, int]]
) -> "Figure":
    """Draw which class is taken for which, and beside it the pairs that are confused most.

    A cell's colour is its share of the row: of the images that are of that class. The colours rise with the square root, so that
    one image in a hundred can be seen.

    Args:
        title: shown as it is.
        confusion: int64 (K, K), images of class i that were taken for class j.
        names: of the classes.
        pairs: (class, what it was taken for, images), the most frequent first.
    """
    from matplotlib.figure import Figure

    count = len(names)
    side = count * _cell(count) / _DPI
    left = 2.2 if count <= _NAMES else 0.9
    panel, bottom, top = 4.6, left, 0.9
    width, height = left + side + 1.1 + panel, bottom + side + top
    figure = Figure(figsize=(width, height), dpi=_DPI)
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    images = np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    shares = 100 * confusion / images
    _draw_matrix(figure, axes, shares, bar=((left + side + 0.15) / width, bottom / height, 0.15 / width, side / height))
    if count <= _NAMES:
        short = [_short(name) for name in names]
        axes.set_xticks(range(count), short, rotation=90, parse_math=False)
        axes.set_yticks(range(count), short, parse_math=False)
    axes.set_xlabel("taken for" if count <= _NAMES else "taken for (label)")
    axes.set_ylabel("is" if count <= _NAMES else "is (label)")
    if count <= _NUMBERS:
        for (row, column), share in np.ndenumerate(shares):
            if confusion[row, column]:
                colour = "white" if share > 35 else "black"
                axes.text(column, row, f"{confusion[row, column]:,}", ha="center", va="center", color=colour, fontsize=9)
    figure.text(left / width, 1 - 0.35 / height, title, fontsize=12, va="top", parse_math=False)
    words = [f"{images:>7,}  {_short(name)} → {_short(other)}" for name, other, images in pairs[:_PAIRS]]
    listed = "\n".join(["most confused: images, is → taken for", "", *(words or ["none is taken for another"])])
    place = ((left + side + 1.1) / width, (bottom + side) / height)
    figure.text(*place, listed, fontsize=8, family="monospace", va="top", linespacing=1.7, parse_math=False)
    return figure


def _draw_matrix(figure: "Figure", axes: "Axes", shares: NDArray[np.float64], bar: Box) -> None:
    """Put the cells where the axes are. They are copied to pixels: scaled as imshow does it, single ones fall between two."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import FixedLocator, StrMethodFormatter

    count = len(shares)
    colours = ScalarMappable(PowerNorm(0.5 if count <= _NAMES else 0.25, vmin=0, vmax=100), colormaps["Blues"])
    cell = _cell(count)
    pixels = colours.to_rgba(shares, bytes=True).repeat(cell, axis=0).repeat(cell, axis=1)
    left, bottom = (round(inches * _DPI) for inches in (axes.get_position().p0 * figure.get_size_inches()))
    figure.figimage(pixels, left, bottom)
    axes.patch.set_visible(False)
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(count - 0.5, -0.5)
    scale = figure.colorbar(colours, cax=figure.add_axes(bar))
    scale.ax.yaxis.set_major_locator(FixedLocator([0, 1, 5, 10, 25, 50, 75, 100]))
    scale.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g} %"))


def _cell(count: int) -> int:
    """Return the side of a cell in whole pixels, or some rows would be thicker than others."""
    return max(1, math.ceil((700 if count <= _NUMBERS else _LEAST_PIXELS) / count))


def _short(name: str) -> str:
    return name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 1]}…"
