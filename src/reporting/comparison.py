"""One group against another: whether they may be compared at all, by which test, and what it says in plain words."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from src.config.report import ReportConfig
from src.reporting.groups import NOT_RECORDED, Group, counted_evaluation
from src.reporting.statistics import Summary, Test, holm, paired, summarise, welch

Verdict = Literal["more than seed noise", "not more than seed noise", "cannot be told", "not comparable"]
_FIELDS = ("split", "subset", "images", "resize_size", "image_size", "crop", "interpolation", "engine", "weights")
_FLIP = "test_time_augmentation"
_HAIR = 0.005  # points that two digits do not show
_ENOUGH = 5  # seeds a group that are worth having


class Comparison(NamedTuple):
    """What can be said of two groups.

    Attributes:
        group, baseline: their names.
        verdict: in three words.
        headline: the answer, in a sentence.
        sentences: how it was found, and what it does not say.
        first, second: the group's and the baseline's accuracies.
        test: the one that was used; None where none could be.
        p: of the test, adjusted for the number of comparisons.
        other: beside a paired test Welch's, for reference.
    """

    group: str
    baseline: str
    verdict: Verdict
    headline: str
    sentences: tuple[str, ...]
    first: Summary
    second: Summary
    test: Test | None
    p: float | None
    other: Test | None


class _Pair(NamedTuple):
    group: Group
    first: list[float]
    second: list[float]
    test: Test | None
    other: Test | None


def compare_groups(pairs: Sequence[tuple[Group, Group]], config: ReportConfig) -> list[Comparison]:
    """Compare the first of each pair with the second, its baseline.

    Raises:
        ConfigError: if scipy is missing and needed.
    """
    measured = [_measure(group, baseline, config) for group, baseline in pairs]
    adjusted = iter(holm([pair.test.p for pair in measured if pair.test is not None]))
    count = sum(pair.test is not None for pair in measured)
    ps = [next(adjusted) if pair.test is not None else None for pair in measured]
    return [_judge(pair, baseline, p, count, config) for pair, (_, baseline), p in zip(measured, pairs, ps, strict=True)]


def accuracies(group: Group, counted: str) -> list[float]:
    """Return what counts of each finished run, by seed."""
    found = (counted_evaluation(run, counted) for run in group.finished)
    return [epoch.val_acc1 for epoch in found if epoch is not None]


def obstacles(group: Group, baseline: Group) -> list[tuple[str, str]]:
    """Return (what differs, how) of all that makes two accuracies incomparable."""
    one, other = group.runs[0].protocol, baseline.runs[0].protocol
    found = []
    for key in ("data", *_FIELDS, _FLIP):
        if one[key] != other[key]:
            found.append((key, f"{key.replace('_', ' ')}: {_told(one[key])} against {_told(other[key])}"))
    if one["classes"] != other["classes"]:
        found.append(("data", f"classes: {_told(one['classes'])} against {_told(other['classes'])}"))
    return found


def _told(value: Any) -> Any:
    return NOT_RECORDED if value is None else value


def _measure(group: Group, baseline: Group, config: ReportConfig) -> _Pair:
    first, second = accuracies(group, config.counted), accuracies(baseline, config.counted)
    refused = [key for key, _ in obstacles(group, baseline) if key not in config.allow]
    if refused or min(len(first), len(second)) < 2:
        return _Pair(group, first, second, None, None)
    settings = {"confidence": config.confidence, "power": config.power}
    seeds, others = ([run.seed for run in one.finished] for one in (group, baseline))
    spread = len(set(first)) > 1 or len(set(second)) > 1
    unpaired = welch(first, second, **settings) if spread else None
    if seeds == others and len(set(seeds)) == len(seeds):
        differences = {round(x - y, 9) for x, y in zip(first, second, strict=True)}
        if len(differences) > 1:
            return _Pair(group, first, second, paired(first, second, **settings), unpaired)
    return _Pair(group, first, second, unpaired, None)


def _judge(pair: _Pair, baseline: Group, p: float | None, count: int, config: ReportConfig) -> Comparison:
    group, test = pair.group, pair.test
    first, second = summarise(pair.first), summarise(pair.second)
    differing = obstacles(group, baseline)
    refused = [text for key, text in differing if key not in config.allow]
    allowed = [f"ALLOWED TO DIFFER: {text}." for key, text in differing if key in config.allow]
    if refused:
        keys = ",".join(dict.fromkeys(key for key, _ in differing if key not in config.allow))
        headline = f"{group.name} and {baseline.name} are not compared: they were measured in different ways."
        say = [f"{text}." for text in refused]
        say.append(f"Evaluate both alike. Where just that is what you want to compare, type allow=[{keys}].")
        return Comparison(group.name, baseline.name, "not comparable", headline, (*say, *allowed), first, second, None, None, None)
    if test is None or p is None:
        headline, say = _untold(pair, baseline)
        return Comparison(group.name, baseline.name, "cannot be told", headline, (*say, *allowed), first, second, None, None, None)
    told = p < 1 - config.confidence
    verdict: Verdict = "more than seed noise" if told else "not more than seed noise"
    beside = f"{baseline.name} ({first.mean:.2f} against {second.mean:.2f} %)"
    size = f"is {abs(test.difference):.2f} points {'better' if test.difference > 0 else 'worse'} than {beside}"
    if abs(test.difference) < _HAIR:
        size = f"differs by less than 0.01 points from {beside}"
    noise = f"that is more than seed noise (p = {_p(p)})" if told else f"seeds alone can make that (p = {_p(p)})"
    headline = f"{group.name} {size}, and {noise}{'' if told else ': no difference is shown'}."
    say = [*allowed, *_size(test, first, second, count, told=told, config=config), _used(test), _meaning(test, p, count, config)]
    say.append(_checked(test, config))
    if pair.other is not None:
        say.append(f"Without the pairs, Welch's t-test says p = {_p(pair.other.p)}.")
    say += _limits(group, baseline, config)
    return Comparison(group.name, baseline.name, verdict, headline, tuple(say), first, second, test, p, pair.other)


def _untold(pair: _Pair, baseline: Group) -> tuple[str, list[str]]:
    """Say why nothing can be said."""
    names = (pair.group.name, baseline.name)
    counts = (len(pair.first), len(pair.second))
    if min(counts) == 0:
        name = names[counts.index(0)]
        return f"{names[0]} against {names[1]}: cannot be told, for {name} has no finished run.", []
    difference = summarise(pair.first).mean - summarise(pair.second).mean
    headline = (
        f"{names[0]} against {names[1]}: cannot be told ({difference:+.2f} points, from {counts[0]} and {counts[1]} finished runs)."
    )
    if min(counts) < 2:
        fix = f"Train the same configuration with other seeds (--multirun seed=0,1,2,3,4): {_ENOUGH} of each are worth having."
        return headline, ["One run does not show how much seeds differ, so no difference can be told from their noise.", fix]
    same = "All runs of each group have the same accuracy, so that they show no noise to compare the difference with."
    return headline, [same, "Look whether their seeds really differ."]


def _size(test: Test, first: Summary, second: Summary, count: int, *, told: bool, config: ReportConfig) -> list[str]:
    """Say how large the difference may be, how large that is beside the noise, and which so few runs would find."""
    between = f"between {test.low:+.2f} and {test.high:+.2f} points"
    interval = f"With {100 * config.confidence:g} % confidence the true difference lies {between}"
    interval += " (each comparison by itself)." if count > 1 else "."
    if not told:
        interval += " That none is shown does not mean that there is none."
    noise = "the deviation of the differences" if test.kind == "paired" else "the deviation between seeds"
    name = "d" if test.kind == "paired" else "Hedges' g"
    size = f"It is {abs(test.effect):.1f} times {noise} ({name} = {test.effect:.2f})."
    runs = f"{first.n} pairs" if test.kind == "paired" else f"{first.n} and {second.n} runs"
    if math.isnan(test.detectable):
        return [interval, size, f"What n can show: hardly anything, from {runs}."]
    found = f"find a true difference of {test.detectable:.2f} points in {100 * config.power:g} % of such comparisons"
    return [interval, size, f"What n can show: {runs} with these deviations {found}, and a smaller one more seldom."]


def _used(test: Test) -> str:
    if test.kind == "paired":
        return (
            f"Used: a paired t-test, because both groups have the same {round(test.df) + 1} seeds: each run is compared with the "
            "one of its seed, which saw the images in the same order."
        )
    return (
        f"Used: Welch's t-test ({test.df:.1f} degrees of freedom), because the runs cannot be paired by seed; it lets "
        "the noise of the two groups differ."
    )


def _meaning(test: Test, p: float, count: int, config: ReportConfig) -> str:
    often = f"{100 * test.p:.1f} %" if test.p >= 0.001 else "fewer than 0.1 %"
    text = f"If the two were equally good, {often} of such comparisons would show a difference as large as this by the luck of the "
    text += f"seeds: that is p = {_p(test.p)}."
    if count > 1:
        text += f" Among {count} comparisons luck has more chances: adjusted for that (Holm), p = {_p(p)}."
    return f"{text} Below {1 - config.confidence:.4g} it counts as more than luck."


def _checked(test: Test, config: ReportConfig) -> str:
    """Say what the exact test says of the same question."""
    exact = test.permutation
    ways = "giving each difference either sign" if test.kind == "paired" else "dealing the same figures out in two groups"
    looked = f"all {exact.splits:,} ways" if exact.exact else f"a sample of the {exact.splits:,} ways"
    check = f"Check without any assumption of a normal distribution, {looked} of {ways}: p = {_p(exact.p)}."
    if exact.smallest >= 1 - config.confidence:
        return f"{check} So few runs cannot get below {_p(exact.smallest)} there, so it can confirm nothing."
    if (test.p < 1 - config.confidence) != (exact.p < 1 - config.confidence):
        return f"{check} The two do not agree: take the result with care, and train more seeds."
    return check


def _limits(group: Group, baseline: Group, config: ReportConfig) -> list[str]:
    found = []
    images = group.runs[0].protocol["images"]
    mean = summarise([*accuracies(group, config.counted), *accuracies(baseline, config.counted)]).mean
    if isinstance(images, int) and images > 0 and math.isfinite(mean):
        error = 2 * 100 * math.sqrt(mean / 100 * (1 - mean / 100) / images)
        found.append(
            f"It speaks of these {images:,} validation images. An accuracy near {mean:.1f} % would be up to {error:.2f} points "
            "another on as many other images (2 standard errors); of that the two groups share most."
        )
    if config.counted == "best":
        found.append("The best evaluation of each run was chosen on these same images, so that both means are a little too high.")
    lost = [one.name for one in (group, baseline) if len(one.finished) < len(one.runs)]
    if lost:
        found.append(f"Unfinished runs do not count ({' and '.join(lost)}).")
    return found


def _p(p: float) -> str:
    return f"{p:.3g}" if p >= 0.0001 else f"{p:.1e}"
