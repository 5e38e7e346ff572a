"""Runs that differ in nothing but the seed are one group, whatever they are called; groups are named by what tells them apart."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from src.config.identity import computed_in
from src.config.secrets import hide_in_tree
from src.reporting.records import Epoch, Run

NOT_RECORDED = "not recorded"
_MOST_PARTS = 4
_CHOICES = (".name", ".arch")
# Of these the configuration says nothing, or not enough: where they differ, two runs are not one recipe.
_SEEN = ("images", "classes", "engine", "crop", "interpolation", "weights")


class Group(NamedTuple):
    """One recipe with one or more seeds.

    Attributes:
        name: what tells it from the other groups of the report.
        runs: sorted by seed.
        keys: all that may change what is computed, but the seed.
        notes: what is odd about them together, as sentences.
    """

    name: str
    runs: tuple[Run, ...]
    keys: Mapping[str, object]
    notes: tuple[str, ...]

    @property
    def finished(self) -> tuple[Run, ...]:
        """The runs whose figures count."""
        return tuple(run for run in self.runs if run.finished)

    @property
    def task(self) -> tuple[object, object]:
        """What is learnt: the data's name and how many classes it has. Accuracies of other tasks mean something else."""
        first = self.runs[0].protocol
        return first["data"], first["classes"]


def group_runs(runs: Sequence[Run]) -> tuple[list[Group], list[tuple[Run, str]]]:
    """Gather runs into groups, in the order of their first runs.

    Returns:
        the groups, and (run, why) of those that would count twice: copies of another.
    """
    gathered: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    copies: list[tuple[Run, str]] = []
    for run in runs:
        members = gathered.setdefault(tuple((key, repr(value)) for key, value in sorted(identity_of(run).items())), [])
        twin = next((other for other in members if other.seed == run.seed and _same(other, run)), None)
        if twin is None:
            members.append(run)
        else:
            copies.append((run, f"a copy of {twin.name}: the same seed with the same figures would count twice"))
    keys = [identity_of(members[0]) for members in gathered.values()]
    names = name_groups(keys)
    groups = []
    for name, group_keys, members in zip(names, keys, gathered.values(), strict=True):
        ordered = tuple(sorted(members, key=lambda run: run.seed))
        groups.append(Group(name, ordered, group_keys, tuple(_oddities(ordered))))
    return groups, copies


def identity_of(run: Run) -> dict[str, object]:
    """Return all that makes a run what it is, but its seed: the computed keys, and what of the protocol they do not tell."""
    keys = {key: value for key, value in computed_in(hide_in_tree(run.stored)).items() if key != "seed"}
    return keys | {f"evaluation.{key}": run.protocol[key] for key in _SEEN}


def distinguishing(groups: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the keys that tell groups apart: choices first, then what all of them have, then what only some have.

    A key that only some have is left out where it says one thing wherever it stands: the choice of its group tells it.
    """
    every = dict.fromkeys(key for keys in groups for key in keys)
    found = []
    for key in every:
        having = [keys[key] for keys in groups if key in keys]
        if len({repr(value) for value in having}) > 1:
            found.append((not key.endswith(_CHOICES), len(having) < len(groups), key))
    ordered = [key for _, _, key in sorted(found, key=lambda entry: entry[:2])]
    if len({tuple(repr(keys.get(key)) for key in ordered) for keys in groups}) < len(groups):  # a key of another version
        ordered += [key for key in every if any(key not in keys for keys in groups) and key not in ordered]
    return ordered


def name_groups(groups: Sequence[Mapping[str, object]]) -> list[str]:
    """Return a name for each group, such as `optim=adam peak_lr=0.001`; all differ."""
    if len(groups) == 1:
        keys = groups[0]
        model = keys.get("model.arch", keys.get("model.name"))
        return [f"{keys.get('data.name')}, {model}, {keys.get('optim.name')}"]
    telling = distinguishing(groups)
    shown = _enough(groups, telling)
    return [
        " ".join(f"{short_key(key, shown)}={_short(keys[key])}" for key in shown if key in keys) or "none of these"
        for keys in groups
    ]


def short_key(key: str, beside: Sequence[str]) -> str:
    """Return `optim` for optim.name, `peak_lr` for optim.peak_lr; the whole key where another ends alike."""
    parts = key.split(".")
    if key.endswith(".name") and len(parts) == 2:
        return parts[0]
    alike = [other for other in beside if other.rpartition(".")[2] == parts[-1]]
    return parts[-1] if len(alike) == 1 else key


def counted_evaluation(run: Run, counted: str) -> Epoch | None:
    """Return the evaluation of a run that counts: the last, or the best (of equals the earlier)."""
    if not run.evaluations:
        return None
    if counted == "best":
        return max(run.evaluations, key=lambda epoch: (epoch.val_acc1, -epoch.step))
    return run.evaluations[-1]


def _enough(groups: Sequence[Mapping[str, object]], telling: Sequence[str]) -> list[str]:
    """Return the first keys, and so many more that no two groups have one name."""
    for count in range(min(_MOST_PARTS, len(telling)), len(telling) + 1):
        shown = list(telling[:count])
        if len({tuple(repr(keys.get(key, "-")) for key in shown) for keys in groups}) == len(groups):
            return shown
    return list(telling)


def _short(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _same(one: Run, other: Run) -> bool:
    """Return whether two runs of one seed have the same figures as far as both go."""
    pairs = list(zip(one.epochs, other.epochs, strict=False))
    return bool(pairs) and all(repr(a[4:]) == repr(b[4:]) for a, b in pairs)


def _oddities(runs: Sequence[Run]) -> list[str]:
    found = []
    seeds = [run.seed for run in runs]
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        listed = ", ".join(map(str, twice))
        found.append(f"seed {listed} stands here more than once with other figures: each run counts, and no pairs are made")
    for key, what in (("device", "devices"), ("world_size", "numbers of ranks")):
        values = sorted({str(run.meta[key]) for run in runs if key in run.meta})
        if len(values) > 1:
            found.append(
                f"the seeds ran on different {what} ({', '.join(values)}): their hours and images/s are not of one machine"
            )
    commits = {run.meta.get("git_commit") for run in runs if run.meta.get("git_commit")}
    if len(commits) > 1:
        found.append(f"the seeds were trained by {len(commits)} different commits of the code")
    if any(run.meta.get("git_dirty") for run in runs):
        found.append("some ran from a working tree with changes that were not committed")
    return found


def describe_protocol(protocol: Mapping[str, Any]) -> str:
    """Return the protocol in one line."""

    def told(key: str) -> Any:
        return NOT_RECORDED if protocol[key] is None else protocol[key]

    images = f"{protocol['images']:,}" if protocol["images"] is not None else "an unrecorded number of"
    flip = ", mirrored, too" if protocol["test_time_augmentation"] == "flip" else ""
    pixels = "exact pixels" if protocol["engine"] == "exact" else f"pixels of {told('engine')}"
    size = f"resize {told('resize_size')}, {told('crop')} {told('image_size')} px, {told('interpolation')}"
    return f"{images} {protocol['split']} images, {size}, {pixels}, {told('precision')}, {told('weights')} weights{flip}"
