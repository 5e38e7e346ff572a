"""Make a report: read, compare, draw, and write its files, each whole or not at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loguru import logger

from src.config import ConfigError, Problem
from src.config.report import ReportConfig
from src.files import write_atomically
from src.reporting.content import FIGURES, Content, gather, with_figures
from src.reporting.markdown import as_markdown
from src.reporting.page import as_page
from src.reporting.pictures import png, svg
from src.reporting.results import as_csv, as_json

PAGE = "report.html"


def make_report(words: Sequence[str], config: ReportConfig) -> dict[str, Any]:
    """Write report.html, results.md, results.csv, results.json and figures/ into the target.

    Args:
        words: what names runs.
        config: how.

    Returns:
        the result, for stdout's last line.

    Raises:
        ConfigError: if runs cannot be found or compared as asked, or the target cannot be written.
    """
    content = gather(words, config)
    for warning in content.warnings:
        logger.warning(warning)
    target = Path(config.target).expanduser() if config.target is not None else content.groups[0].runs[0].path.parent / "report"
    logger.info(f"drawing, and writing to {target}")
    content = with_figures(content)
    try:
        _write(content, target)
    except OSError as error:
        fix = f"cannot be written ({error.strerror}). Type target=<a folder that can>."
        raise ConfigError("the report", [Problem("target", str(target), fix)]) from error
    for comparison in content.comparisons:
        logger.info(f"{comparison.verdict.upper()}: {comparison.headline}")
    return {
        "target": str(target),
        "page": str(target / PAGE),
        "runs": sum(len(group.runs) for group in content.groups),
        "groups": {group.name: len(group.finished) for group in content.groups},
        "comparisons": [
            {"group": one.group, "baseline": one.baseline, "verdict": one.verdict, "p": one.p} for one in content.comparisons
        ],
        "left_out": len(content.left_out),
    }


def _write(content: Content, target: Path) -> None:
    (target / FIGURES).mkdir(parents=True, exist_ok=True)
    for task in content.tasks:
        for figure in task.figures:
            write_atomically(target / FIGURES / f"{task.prefix}{figure.name}.png", png(figure))
            write_atomically(target / FIGURES / f"{task.prefix}{figure.name}.svg", svg(figure))
    texts = {"results.md": as_markdown, "results.csv": as_csv, "results.json": as_json, PAGE: as_page}
    for name, made in texts.items():
        write_atomically(target / name, made(content).encode("utf-8", errors="replace"))
