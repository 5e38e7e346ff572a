"""results.md: the tables as GitHub's Markdown, to be pasted into a README."""

import re
from collections.abc import Sequence

from src.reporting.content import FIGURES, Content
from src.reporting.tables import Table, differences_table, epochs_table, groups_table, runs_table


def as_markdown(content: Content) -> str:
    """Return the whole file. What comes from runs' folders is escaped."""
    parts = ["# Results\n"]
    if content.warnings:
        parts += ["**To be known first**\n", *(f"- {_plain(text)}" for text in content.warnings), ""]
    for task in content.tasks:
        parts += [_table(groups_table(task.groups, content.config.counted), title=f"Results on {task.name}")]
    if content.comparisons:
        parts.append("## Is the difference more than seed noise?\n")
    for comparison in content.comparisons:
        parts += [f"**{_plain(comparison.headline)}**\n", *(f"- {_plain(text)}" for text in comparison.sentences), ""]
    apart = differences_table(content.groups)
    parts += [] if apart is None else [_table(apart)]
    for task in content.tasks:
        parts += [f"![{_plain(figure.alt)}]({FIGURES}/{task.prefix}{figure.name}.png)\n" for figure in task.figures]
    parts.append(_table(runs_table(content.groups)))
    parts.append("## Epoch by epoch\n")
    parts += [_table(epochs_table(run), level=3) for group in content.groups for run in group.runs]
    return "\n".join(parts)


def _table(table: Table, *, title: str | None = None, level: int = 2) -> str:
    columns = range(len(table.header))
    lines = [
        f"{'#' * level} {_plain(title or table.title)}\n",
        _row(table.header),
        "|" + "|".join("---" if column in table.left else "---:" for column in columns) + "|",
        *(_row(row) for row in table.rows),
        "",
        f"{_plain(table.note)}\n",
    ]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    """Return the text so that Markdown shows it as it is, in one line."""
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"([\\`*\[\]|])", r"\\\1", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
