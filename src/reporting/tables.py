"""The tables as plain text cells, which Markdown and the page both show."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from src.reporting.comparison import accuracies
from src.reporting.groups import NOT_RECORDED, Group, counted_evaluation, describe_protocol, distinguishing
from src.reporting.records import Epoch, Run
from src.reporting.statistics import Summary, summarise
from src.tracking.progress import duration

MISSING = "-"


class Table(NamedTuple):
    """Rows of texts.

    Attributes:
        title: of the table.
        header: one text a column.
        rows: as many texts each.
        left: columns that hold words; the others hold figures.
        note: below it.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: frozenset[int]
    note: str


def groups_table(groups: Sequence[Group], counted: str) -> Table:
    """Return a row a group: the results. How they were evaluated stands below where that is one way, else in a column."""
    other = "best" if counted == "last" else "last"
    results = ("group", "n", f"{counted} top-1 %", f"{other} top-1 %", "top-5 %", "val loss")
    header = (*results, "training time", "images/s", "epochs", "batch size")
    rows = [_group_row(group, counted, other) for group in groups]
    protocols = [describe_protocol((group.finished or group.runs)[0].protocol) for group in groups]
    note = f"Top-1, top-5 and loss are of the {counted} evaluation of each finished run: mean ± sample standard deviation over n "
    note += "seeds. Training time is h:mm:ss without evaluation."
    if len(set(protocols)) == 1:
        return Table("Results", header, tuple(rows), frozenset({0}), f"{note} Evaluated on {protocols[0]}.")
    rows = [(*row, protocol) for row, protocol in zip(rows, protocols, strict=True)]
    return Table("Results", (*header, "evaluated on"), tuple(rows), frozenset({0, len(header)}), note)


def runs_table(groups: Sequence[Group]) -> Table:
    """Return a row a run."""
    results = ("run", "group", "seed", "state", "last top-1 %", "last top-5 %", "last val loss", "best top-1 %", "best epoch")
    header = (*results, "training time", "images/s", "device", "commit")
    rows = [_run_row(group, run) for group in groups for run in group.runs]
    return Table("Runs", header, tuple(rows), frozenset({0, 1, 3, 11, 12}), "Epochs are counted from 0.")


def epochs_table(run: Run) -> Table:
    """Return a row an epoch of one run."""
    header = ("epoch", "step", "time", "train loss", "train top-1 %", "val loss", "val top-1 %", "val top-5 %")
    rows = tuple(_epoch_row(epoch) for epoch in run.epochs)
    return Table(f"{run.name} (seed {run.seed}, {run.status})", header, rows, frozenset(), "Time is of training, h:mm:ss.")


def differences_table(groups: Sequence[Group]) -> Table | None:
    """Return a row a key in which groups differ, a column a group; None for one group."""
    if len(groups) < 2:
        return None
    keys = distinguishing([group.keys for group in groups])
    rows = tuple((key, *(_value(group.keys, key) for group in groups)) for key in keys)
    columns = ("key", *(group.name for group in groups))
    note = "Every other key that can change what is computed is the same; - where a choice has no such key."
    return Table("What tells the groups apart", columns, rows, frozenset(range(len(columns))), note)


def images_per_second(run: Run) -> float:
    """Return images trained on in a second of training, over the whole run."""
    last = run.epochs[-1] if run.epochs else None
    return last.step * run.batch_size / last.elapsed if last is not None and last.elapsed > 0 else math.nan


def spread(summary: Summary, digits: int) -> str:
    """Return `92.67 ± 0.17`, of one value without a deviation."""
    if math.isnan(summary.mean):
        return MISSING
    mean = f"{summary.mean:,.{digits}f}"
    return mean if math.isnan(summary.sd) else f"{mean} ± {summary.sd:,.{digits}f}"


def number(value: float, digits: int) -> str:
    """Return a figure, or a dash for none."""
    return MISSING if math.isnan(value) else f"{value:,.{digits}f}"


def clock(seconds: float) -> str:
    """Return h:mm:ss, or a dash for none."""
    return MISSING if math.isnan(seconds) else duration(seconds)


def _group_row(group: Group, counted: str, other: str) -> tuple[str, ...]:
    runs = group.finished
    chosen = [epoch for run in runs if (epoch := counted_evaluation(run, counted)) is not None]
    unfinished = len(group.runs) - len(runs)
    return (
        group.name,
        f"{len(runs)}" + (f" (+{unfinished} unfinished)" if unfinished else ""),
        spread(summarise([epoch.val_acc1 for epoch in chosen]), 2),
        spread(summarise(accuracies(group, other)), 2),
        spread(summarise([epoch.val_acc5 for epoch in chosen]), 2),
        spread(summarise([epoch.val_loss for epoch in chosen]), 4),
        clock(summarise([run.epochs[-1].elapsed for run in runs]).mean),
        spread(summarise([images_per_second(run) for run in runs]), 0),
        f"{group.runs[0].stored['epochs']}",
        f"{group.runs[0].batch_size:,}",
    )


def _run_row(group: Group, run: Run) -> tuple[str, ...]:
    last, best = counted_evaluation(run, "last"), counted_evaluation(run, "best")
    figures = [MISSING] * 5
    if last is not None and best is not None:
        figures = [number(last.val_acc1, 2), number(last.val_acc5, 2), number(last.val_loss, 4)]
        figures += [number(best.val_acc1, 2), f"{best.epoch}"]
    time = clock(run.epochs[-1].elapsed) if run.epochs else MISSING
    machine = f"{run.meta.get('world_size', '?')} x {run.meta.get('device', NOT_RECORDED)}"
    commit = str(run.meta.get("git_commit") or MISSING)[:10] + (" + changes" if run.meta.get("git_dirty") else "")
    speed = number(images_per_second(run), 0)
    return (run.name, group.name, f"{run.seed}", run.status, *figures, time, speed, machine, commit)


def _epoch_row(epoch: Epoch) -> tuple[str, ...]:
    figures = ((epoch.train_loss, 4), (epoch.train_acc1, 2), (epoch.val_loss, 4), (epoch.val_acc1, 2), (epoch.val_acc5, 2))
    return (f"{epoch.epoch}", f"{epoch.step:,}", clock(epoch.seconds), *(number(value, digits) for value, digits in figures))


def _value(keys: Mapping[str, object], key: str) -> str:
    if key not in keys:
        return MISSING
    value = keys[key]
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
