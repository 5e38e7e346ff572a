"""report.html: everything in one file that asks for nothing else: no script, no font, no picture from elsewhere.

All that comes from runs' folders is escaped, and the page forbids itself scripts and requests besides (Content-Security-Policy).
"""

from collections.abc import Iterator, Sequence
from html import escape

from src.reporting.comparison import Comparison
from src.reporting.content import Content
from src.reporting.pictures import inline_svg
from src.reporting.style import STYLE
from src.reporting.tables import Table, differences_table, epochs_table, groups_table, runs_table

_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
"""
_AT_ONCE = 3  # sentences of a comparison that are seen without opening anything
_CLASSES = {"more than seed noise": "answer yes", "not comparable": "answer refused"}


def as_page(content: Content) -> str:
    """Return the whole document."""
    return "\n".join(_parts(content))


def _parts(content: Content) -> Iterator[str]:
    runs = sum(len(group.runs) for group in content.groups)
    title = f"{_count(runs, 'run')} in {_count(len(content.groups), 'group')}"
    yield _HEAD.format(title=escape(f"Report: {title}"), style=STYLE)
    yield f"<header><h1>{escape(title)}</h1><p class=soft>{escape(_lead(content))}</p></header><main>"
    yield from _warnings(content)
    for task in content.tasks:
        yield from _table(groups_table(task.groups, content.config.counted), title=f"Results on {task.name}")
    if content.comparisons:
        yield "<section><h2>Is the difference more than seed noise?</h2>"
        for comparison in content.comparisons:
            yield from _answer(comparison)
        yield "</section>"
    yield from _figures(content)
    apart = differences_table(content.groups)
    if apart is not None:
        yield from _table(apart)
    yield from _table(runs_table(content.groups))
    yield "<section><h2>Epoch by epoch</h2>"
    for group in content.groups:
        for run in group.runs:
            table = epochs_table(run)
            yield f"<details><summary>{escape(table.title)}</summary>"
            yield from _rows(table)
            yield "</details>"
    yield "</section><section><h2>Commands</h2>"
    for group in content.groups:
        for run in group.runs:
            command = run.meta.get("command")
            if isinstance(command, list):
                yield f"<p>{escape(run.name)}: <code>{escape(' '.join(map(str, command)))}</code></p>"
    yield "</section></main></body></html>\n"


def _lead(content: Content) -> str:
    parts = []
    for task in content.tasks:
        finished = sum(len(group.finished) for group in task.groups)
        parts.append(f"{task.name}: {_count(finished, 'finished run')}")
    return "; ".join(parts) + ". Groups are runs that differ in nothing but the seed."


def _warnings(content: Content) -> Iterator[str]:
    if content.warnings:
        yield "<section class=alert><strong>To be known first</strong>"
        yield from _list(content.warnings)
        yield "</section>"


def _answer(comparison: Comparison) -> Iterator[str]:
    yield f'<article class="{_CLASSES.get(comparison.verdict, "answer")}"><p class=verdict>{escape(comparison.verdict)}</p>'
    yield f"<h3>{escape(comparison.headline)}</h3>"
    at_once = comparison.sentences if comparison.test is None else comparison.sentences[:_AT_ONCE]
    yield from _list(at_once)
    if len(comparison.sentences) > len(at_once):
        yield "<details><summary>How this was found, and what it does not say</summary>"
        yield from _list(comparison.sentences[len(at_once) :])
        yield "</details>"
    yield "</article>"


def _list(sentences: Sequence[str]) -> Iterator[str]:
    yield "<ul>"
    yield from (f"<li>{escape(text)}</li>" for text in sentences)
    yield "</ul>"


def _figures(content: Content) -> Iterator[str]:
    number = 0
    for task in content.tasks:
        heading = f"Figures of {task.name}" if len(content.tasks) > 1 else "Figures"
        yield f"<section><h2>{escape(heading)}</h2><div class=figures>"
        for figure in task.figures:
            number += 1
            yield f"<figure>{inline_svg(figure, number=number)}<figcaption>{escape(figure.caption)}</figcaption></figure>"
        if not task.figures:
            yield "<p>No epoch was finished: there is nothing to draw.</p>"
        yield "</div></section>"


def _table(table: Table, *, title: str | None = None) -> Iterator[str]:
    yield f"<section><h2>{escape(title or table.title)}</h2>"
    yield from _rows(table)
    yield "</section>"


def _rows(table: Table) -> Iterator[str]:
    yield f'<div class=scroll tabindex=0 role=region aria-label="{escape(table.title)}"><table><thead><tr>'
    yield "".join(f"<th scope=col{_class(table, column)}>{escape(text)}</th>" for column, text in enumerate(table.header))
    yield "</tr></thead><tbody>"
    for row in table.rows:
        first, *rest = row
        cells = "".join(f"<td{_class(table, column)}>{escape(text)}</td>" for column, text in enumerate(rest, start=1))
        yield f"<tr><th scope=row{_class(table, 0)}>{escape(first)}</th>{cells}</tr>"
    yield f"</tbody></table></div><p class=note>{escape(table.note)}</p>"


def _class(table: Table, column: int) -> str:
    return " class=words" if column in table.left else ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
