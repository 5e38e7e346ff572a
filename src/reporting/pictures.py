"""From a figure to bytes: a PNG and an SVG file, and an SVG that stands in a page and takes the page's colours."""

import io
import re
import warnings
from functools import lru_cache
from html import escape

from src.reporting.figures import Drawn
from src.reporting.sheet import COLOURS, GRID, INK

_PAGE_COLOURS = {INK: "currentColor", GRID: "var(--grid)"} | {colour: f"var(--c{number})" for number, colour in enumerate(COLOURS)}
_ID = re.compile(r"""(id="|href="#|url\(#)""")


def png(drawn: Drawn) -> bytes:
    """Return the figure on white."""
    return _saved(drawn, "png", facecolor="white", metadata={"Software": None})


def svg(drawn: Drawn) -> bytes:
    """Return the figure on white, letters as outlines. The same figure gives the same bytes."""
    text = _svg(drawn)
    inside = text.index(">", text.index("<svg")) + 1
    return f'{text[:inside]}\n <rect width="100%" height="100%" fill="#ffffff"/>{text[inside:]}'.encode()


def inline_svg(drawn: Drawn, *, number: int) -> str:
    """Return the figure as an element of a page, without a background.

    Args:
        drawn: the figure.
        number: of the figure in the page: ids of two figures must not meet.
    """
    text = _svg(drawn)
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)  # each holds a text as it was typed
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = _ID.sub(lambda match: f"{match[1]}f{number}-", text)
    for colour, of_page in _PAGE_COLOURS.items():
        text = re.sub(re.escape(colour), of_page, text, flags=re.I)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"\s*\n\s*", "\n", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(drawn.alt)}" ', 1)


@lru_cache(maxsize=64)
def _svg(drawn: Drawn) -> str:
    return _saved(drawn, "svg", facecolor="none", metadata={"Date": None, "Creator": None}).decode()


def _saved(drawn: Drawn, kind: str, *, facecolor: str, metadata: dict[str, None]) -> bytes:
    import matplotlib

    data = io.BytesIO()
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": drawn.name, "svg.fonttype": "path"}):
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        drawn.figure.savefig(data, format=kind, facecolor=facecolor, metadata=metadata)
    return data.getvalue()
