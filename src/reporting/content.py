"""Everything that a report says, before it is Markdown, a page or a file of figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from src.config import ConfigError, Problem
from src.config.report import ReportConfig
from src.reporting.comparison import Comparison, compare_groups
from src.reporting.figures import Drawn, draw_all
from src.reporting.find import find_runs
from src.reporting.groups import Group, describe_protocol, group_runs
from src.reporting.records import Run, UnusableRunError, read_run

FIGURES = "figures"  # folder in the report's


class Task(NamedTuple):
    """What was learnt, the groups that learnt it, and their figures. Groups of other tasks share no picture with them.

    Attributes:
        name: for people.
        prefix: of its figures' files, where there are several tasks.
        groups: in order.
        figures: what there was something to draw of.
    """

    name: str
    prefix: str
    groups: tuple[Group, ...]
    figures: tuple[Drawn, ...]


class Content(NamedTuple):
    """The report.

    Attributes:
        config: how it was asked for.
        tasks: at least one.
        comparisons: of every group with the baseline.
        warnings: what a reader must know before any figure, as sentences.
        left_out: (path, why) of what was named and is not in the report.
    """

    config: ReportConfig
    tasks: tuple[Task, ...]
    comparisons: tuple[Comparison, ...]
    warnings: tuple[str, ...]
    left_out: tuple[tuple[Path, str], ...]

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups, task by task."""
        return tuple(group for task in self.tasks for group in task.groups)


def gather(words: Sequence[str], config: ReportConfig) -> Content:
    """Read the runs, group and compare them. Nothing is drawn yet.

    Raises:
        ConfigError: if a path does not exist, no run can be reported, or `against` is not one group.
    """
    against = _split(config.against)
    problems: list[Problem] = []
    found = []
    for texts, key in ((words, "runs"), (against, "against")):
        try:
            found.append(find_runs(texts, key=key) if texts else None)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError("the runs", problems)
    named, baseline_named = found
    assert named is not None
    paths = {path.resolve(): path for path in named.runs}
    base_paths = {} if baseline_named is None else {path.resolve(): path for path in baseline_named.runs}
    runs, left_out = _read([*{**base_paths, **paths}.values()])
    left_out += [*named.others, *(() if baseline_named is None else baseline_named.others)]
    if not runs:
        raise ConfigError("the runs", [Problem(str(path), None, f"{why}.") for path, why in left_out])
    groups, copies = group_runs(_distinct(runs))
    left_out += [(run.path, why) for run, why in copies]
    baseline = _baseline(groups, set(base_paths), config)
    comparisons = compare_groups(_pairs(groups, baseline, config), config)
    names = list(dict.fromkeys(group.task for group in groups))
    tasks = []
    for number, task in enumerate(names, start=1):
        members = tuple(group for group in groups if group.task == task)
        data, classes = task
        name = f"{data}" if classes is None else f"{data}, {classes:,} classes"
        tasks.append(Task(name, f"task{number}_" if len(names) > 1 else "", members, ()))
    return Content(config, tuple(tasks), tuple(comparisons), tuple(_warnings(groups, tasks, left_out)), tuple(left_out))


def with_figures(content: Content) -> Content:
    """Draw each task's figures."""
    return content._replace(tasks=tuple(task._replace(figures=tuple(draw_all(task.groups))) for task in content.tasks))


def _split(against: str | None) -> list[str]:
    if against is None:
        return []
    return [against] if Path(against).expanduser().exists() else [word for word in against.split(",") if word]


def _read(paths: Sequence[Path]) -> tuple[list[Run], list[tuple[Path, str]]]:
    runs, left_out = [], []
    for path in paths:
        try:
            runs.append(read_run(path))
        except UnusableRunError as error:
            left_out.append((path, str(error)))
    return runs, left_out


def _distinct(runs: Sequence[Run]) -> list[Run]:
    """Return the runs with names that differ: a folder's name, or its whole path where two have one name."""
    names = [run.name for run in runs]
    return [run if names.count(run.name) == 1 else run._replace(name=str(run.path)) for run in runs]


def _baseline(groups: Sequence[Group], against: set[Path], config: ReportConfig) -> Group:
    """Return the group that the others are compared with.

    Raises:
        ConfigError: if `against` names runs of several groups, or none that can be reported.
    """
    if not against:
        return groups[0]
    meant = [group for group in groups if any(run.path.resolve() in against for run in group.runs)]
    if len(meant) == 1:
        return meant[0]
    fix = "holds no run that can be reported." if not meant else f"holds runs of {len(meant)} groups. Name those of one."
    raise ConfigError("the runs", [Problem("against", config.against, fix)])


def _pairs(groups: Sequence[Group], baseline: Group, config: ReportConfig) -> list[tuple[Group, Group]]:
    """Return who is compared with whom: all with the baseline; where none was named, with the first group of the same task."""
    firsts: dict[object, Group] = {}
    for group in groups:
        firsts.setdefault(group.task, group)
    pairs = []
    for group in groups:
        first = firsts[group.task]
        free = config.against is None and "data" not in config.allow
        other = first if free and group is not first else baseline
        pairs += [] if group is other else [(group, other)]
    return pairs


def _warnings(groups: Sequence[Group], tasks: Sequence[Task], left_out: Sequence[tuple[Path, str]]) -> list[str]:
    found = []
    if len(tasks) > 1:
        listed = "; ".join(task.name for task in tasks)
        found.append(f"THESE ARE {len(tasks)} DIFFERENT TASKS ({listed}): an accuracy of one says nothing about another.")
    for task in tasks:
        protocols = list(dict.fromkeys(describe_protocol((group.finished or group.runs)[0].protocol) for group in task.groups))
        if len(protocols) > 1:
            found.append(f"NOT ALL WERE EVALUATED ALIKE on {task.name}: {' | '.join(protocols)}.")
    notes = dict.fromkeys(note for group in groups for note in group.notes)
    found += [f"{', '.join(group.name for group in groups if note in group.notes)}: {note}." for note in notes]
    for group in groups:
        unfinished = [f"{run.name} ({run.status})" for run in group.runs if not run.finished]
        if unfinished:
            found.append(f"{group.name}: unfinished runs are shown and counted in no mean and no test: {', '.join(unfinished)}.")
        found += [f"{run.name}: {note}." for run in group.runs for note in run.notes]
    found += [f"LEFT OUT: {path}: {why}." for path, why in left_out]
    return found
