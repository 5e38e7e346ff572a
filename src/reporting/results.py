"""results.json and results.csv: every figure as exact as it was recorded, for other programs."""

import csv
import io
import json
import math
from typing import Any

from src.reporting.comparison import Comparison, accuracies
from src.reporting.content import Content
from src.reporting.groups import Group, counted_evaluation
from src.reporting.records import Epoch, Run
from src.reporting.statistics import Summary, summarise
from src.reporting.tables import images_per_second

_COLUMNS = ("run", "group", "seed", "status", "finished", "last_acc1", "last_acc5", "last_loss", "best_acc1", "best_epoch")
_MORE = ("epochs", "steps", "training_seconds", "images_per_second", "path")


def as_json(content: Content) -> str:
    """Return the whole report but its pictures. What was not measured is null."""
    tree = {
        "counted": content.config.counted,
        "warnings": content.warnings,
        "groups": [_group(group, content.config.counted) for group in content.groups],
        "comparisons": [comparison_tree(comparison) for comparison in content.comparisons],
        "left_out": [{"path": str(path), "why": why} for path, why in content.left_out],
    }
    return json.dumps(_nulled(tree), indent=1) + "\n"


def as_csv(content: Content) -> str:
    """Return a line a run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS, *_MORE])
    for group in content.groups:
        for run in group.runs:
            row = _run(run)
            flat = [row["last"].get(key) for key in ("val_acc1", "val_acc5", "val_loss")]
            flat += [row["best"].get(key) for key in ("val_acc1", "epoch")]
            first = [_cell(run.name), _cell(group.name), run.seed, run.status, run.finished]
            more = [len(run.epochs), row["steps"], row["training_seconds"], row["images_per_second"], _cell(str(run.path))]
            writer.writerow(["" if isinstance(value, float) and math.isnan(value) else value for value in (*first, *flat, *more)])
    return text.getvalue()


def comparison_tree(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as plain containers."""
    tree = comparison._asdict()
    for key in ("test", "other"):
        found = getattr(comparison, key)
        tree[key] = None if found is None else {**found._asdict(), "permutation": found.permutation._asdict()}
    return tree | {"first": _summary(comparison.first), "second": _summary(comparison.second)}


def _group(group: Group, counted: str) -> dict[str, Any]:
    chosen = [epoch for run in group.finished if (epoch := counted_evaluation(run, counted)) is not None]
    return {
        "name": group.name,
        "n": len(group.finished),
        "last_acc1": _summary(summarise(accuracies(group, "last"))),
        "best_acc1": _summary(summarise(accuracies(group, "best"))),
        "acc5": _summary(summarise([epoch.val_acc5 for epoch in chosen])),
        "loss": _summary(summarise([epoch.val_loss for epoch in chosen])),
        "training_seconds": _summary(summarise([run.epochs[-1].elapsed for run in group.finished])),
        "images_per_second": _summary(summarise([images_per_second(run) for run in group.finished])),
        "protocol": dict(group.runs[0].protocol),
        "configuration": dict(group.keys),
        "runs": [_run(run) for run in group.runs],
    }


def _run(run: Run) -> dict[str, Any]:
    last, best = counted_evaluation(run, "last"), counted_evaluation(run, "best")
    end = run.epochs[-1] if run.epochs else None
    return {
        "name": run.name,
        "path": str(run.path),
        "seed": run.seed,
        "status": run.status,
        "finished": run.finished,
        "last": _epoch(last),
        "best": _epoch(best),
        "steps": end.step if end is not None else 0,
        "training_seconds": end.elapsed if end is not None else 0.0,
        "images_per_second": images_per_second(run),
        "epochs": [_epoch(epoch) for epoch in run.epochs],
    }


def _epoch(epoch: Epoch | None) -> dict[str, Any]:
    return {} if epoch is None else epoch._asdict()


def _summary(summary: Summary) -> dict[str, Any]:
    return summary._asdict()


def _cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" else text


def _nulled(tree: Any) -> Any:
    if isinstance(tree, float) and not math.isfinite(tree):
        return None
    if isinstance(tree, dict):
        return {key: _nulled(value) for key, value in tree.items()}
    return [_nulled(value) for value in tree] if isinstance(tree, list | tuple) else tree
