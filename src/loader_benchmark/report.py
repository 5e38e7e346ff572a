"""The loader benchmark's table on the console, and its plot."""

from pathlib import Path
from typing import Any

from loguru import logger
from rich.console import Console
from rich.table import Table

from src.loader_benchmark.catalogue import HEADLINES, OWN_PEER, RAW_SIDE

_STORED = ("jpeg", "half raw", "raw")
_TITLES = {"jpeg": "JPEG files", "half raw": "half of the images as pixels", "raw": f"pixels, at most {RAW_SIDE} px"}
_LOG_WIDTH = 140
_OURS, _THEIRS = "#1f6fb4", "#9a9a9a"


def print_table(console: Console, result: dict[str, Any]) -> None:
    """Print a row for each contender, fastest first, and the ratios."""
    cpus, rounds = result["cpus"], result["rounds"]
    title = f"{cpus} CPUs, batches of {result['batch']} x {result['image_size']} px, {rounds} rounds; ours are bold"
    table = Table(title=title, title_justify="left")
    table.add_column("loader", no_wrap=True)
    for column in ("images/s", "95 %", "CPU s/1,000", "first batch s", "MiB"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("note")
    for stored in _STORED:
        rows = ordered(result, stored)
        if rows:
            table.add_section()
            table.add_row(f"[italic]{_TITLES[stored]}")
        for name, figures, ours in rows:
            low, high = figures["interval"]
            note = ", ".join(part for part in (figures["note"], figures["dtype"] if figures["dtype"] != "uint8" else "") if part)
            table.add_row(
                f"[bold]{name}" if ours else name,
                f"{figures['images_per_second']:,.0f}",
                f"{low:,.0f} - {high:,.0f}",
                f"{figures['cpu_seconds_per_1000']:.2f}",
                f"{figures['first_batch_seconds']:.1f}",
                f"{figures['peak_mib']:,.0f}",
                note,
            )
    # A log has no width: lines there are as long as the table needs.
    wide = console if console.is_terminal else Console(stderr=True, highlight=False, width=_LOG_WIDTH)
    wide.print(table)
    for name, reason in result["missing"].items():
        wide.print(f"{name}: left out: {reason}", markup=False, soft_wrap=True)
    for line in _ratio_lines(result):
        wide.print(line, soft_wrap=True)


def ordered(result: dict[str, Any], stored: str) -> list[tuple[str, dict[str, Any], bool]]:
    """Return (name, figures, ours) of those on this kind of storage, fastest first."""
    both = [(name, figures, ours) for key, ours in (("engines", True), ("peers", False)) for name, figures in result[key].items()]
    chosen = [row for row in both if row[1]["stored"] == stored]
    return sorted(chosen, key=lambda row: -row[1]["images_per_second"])


def write_plot(result: dict[str, Any], path: Path) -> None:
    """Write horizontal bars with intervals as a PNG. Without matplotlib: says so, and writes nothing."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        logger.warning(f"no plot: it needs matplotlib: pip install 'imagenet-trainer[benchmark]' ({error})")
        return
    mpl.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    groups = [(stored, rows) for stored in _STORED if (rows := ordered(result, stored))]
    counts = [len(rows) for _, rows in groups]
    figure, axes = pyplot.subplots(
        len(groups),
        1,
        figsize=(9, 1.3 + 0.3 * sum(counts) + 0.6 * len(groups)),
        squeeze=False,
        layout="constrained",
        height_ratios=[count + 1 for count in counts],
    )
    for axis, (stored, rows) in zip(axes[:, 0], groups, strict=True):
        names = [name for name, _, _ in rows]
        speeds = [figures["images_per_second"] for _, figures, _ in rows]
        ends = [figures["interval"] for _, figures, _ in rows]
        below = [speed - low for speed, (low, _) in zip(speeds, ends, strict=True)]
        above = [high - speed for speed, (_, high) in zip(speeds, ends, strict=True)]
        colours = [_OURS if ours else _THEIRS for _, _, ours in rows]
        axis.barh(names, speeds, xerr=[below, above], color=colours, height=0.7, error_kw={"capsize": 3, "elinewidth": 1})
        for place, (speed, (_, high)) in enumerate(zip(speeds, ends, strict=True)):
            axis.text(high, place, f"  {speed:,.0f}", va="center", fontsize=9)
        axis.invert_yaxis()
        axis.set_xlim(0, 1.15 * max(high for _, high in ends))
        axis.set_title(_TITLES[stored], loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel("images a second (median and 95 % interval)")
    setting = f"{result['cpus']} CPUs, {result['image_size']} px crops, batches of {result['batch']}, {result['rounds']} rounds"
    figure.suptitle(setting, fontsize=11)
    handles = [Patch(color=_OURS, label="ours"), Patch(color=_THEIRS, label="stock")]
    axes[0, 0].legend(handles=handles, loc="lower right", frameon=False)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        logger.warning(f"no plot: {path} cannot be written: {error.strerror}")
    finally:
        pyplot.close(figure)


def _ratio_lines(result: dict[str, Any]) -> list[str]:
    lines = []
    for name, other in dict.fromkeys([(result["best_engine"], result["best_peer"]), *HEADLINES.values(), *OWN_PEER.values()]):
        found = result["paired"].get(name, {}).get(other)
        if found is not None:
            low, high = found["interval"]
            lines.append(f"{name} is {found['ratio']:.2f} times as fast as {other} ({low:.2f} to {high:.2f})")
    return lines
