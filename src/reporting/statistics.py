"""Whether two groups of runs differ by more than seeds do. scipy is imported here, and only where there is something to compare.

Welch's t-test: Welch 1947, "The generalization of Student's problem when several different population variances are involved".
Hedges' g: Hedges 1981, "Distribution theory for Glass's estimator of effect size". Exact permutations: Fisher 1935, "The design of
experiments". Holm: Holm 1979, "A simple sequentially rejective multiple test procedure".
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.config import ConfigError, Problem

_MOST_SPLITS = 500_000  # that are all gone through; about a second
_DRAWN_SPLITS = 100_000
_SLACK = 1e-9  # points: a split that rounding alone makes another is as large


class Summary(NamedTuple):
    """Some figures. The deviation is that of a sample (n - 1), and NaN for fewer than two."""

    n: int
    mean: float
    sd: float


class Permutation(NamedTuple):
    """How many ways of dealing the same figures out differ at least as much.

    Attributes:
        p: two-sided.
        smallest: the least p that so many figures can have.
        splits: how many ways there are.
        exact: whether all were gone through, or a sample of them with a fixed seed.
    """

    p: float
    smallest: float
    splits: int
    exact: bool


class Test(NamedTuple):
    """A comparison of two groups' accuracies: first minus second, in points.

    Attributes:
        kind: "paired" or "welch".
        difference: of the means.
        low, high: confidence interval of it.
        p: two-sided, of the t-test.
        df: degrees of freedom.
        t: the statistic.
        effect: paired: difference over the deviation of the differences; welch: Hedges' g, over the pooled deviation.
        detectable: the true difference that a test of this size would find with the wanted power, given these deviations.
        permutation: the exact test of the same question, which assumes no normal distribution.
    """

    kind: Literal["paired", "welch"]
    difference: float
    low: float
    high: float
    p: float
    df: float
    t: float
    effect: float
    detectable: float
    permutation: Permutation


def summarise(values: Sequence[float]) -> Summary:
    """Return n, mean and sample deviation. Of no values the mean is NaN."""
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else math.nan
    return Summary(n, mean, sd)


def welch(first: Sequence[float], second: Sequence[float], *, confidence: float, power: float) -> Test:
    """Compare two independent samples of at least two values each, not all of them equal within both.

    Raises:
        ConfigError: if scipy is missing.
    """
    a, b = summarise(first), summarise(second)
    va, vb = a.sd**2 / a.n, b.sd**2 / b.n
    error = math.sqrt(va + vb)
    df = (va + vb) ** 2 / (va**2 / (a.n - 1) + vb**2 / (b.n - 1))
    pooled = math.sqrt(((a.n - 1) * a.sd**2 + (b.n - 1) * b.sd**2) / (a.n + b.n - 2))
    small = math.exp(math.lgamma((a.n + b.n - 2) / 2) - math.lgamma((a.n + b.n - 3) / 2)) / math.sqrt((a.n + b.n - 2) / 2)
    permutation = permute_groups(first, second)
    effect = small * (a.mean - b.mean) / pooled
    return _test("welch", a.mean - b.mean, error, df, effect, permutation, confidence=confidence, power=power)


def paired(first: Sequence[float], second: Sequence[float], *, confidence: float, power: float) -> Test:
    """Compare two samples of at least two values, the same seed at the same place, whose differences are not all equal.

    Raises:
        ConfigError: if scipy is missing.
    """
    differences = [x - y for x, y in zip(first, second, strict=True)]
    d = summarise(differences)
    error = d.sd / math.sqrt(d.n)
    return _test("paired", d.mean, error, d.n - 1, d.mean / d.sd, flip_signs(differences), confidence=confidence, power=power)


def permute_groups(first: Sequence[float], second: Sequence[float]) -> Permutation:
    """Deal all figures out in two groups of these sizes, in every way, and count differences of means at least as far out."""
    values = np.asarray([*first, *second], dtype=np.float64)
    n, m = len(first), len(second)
    splits = math.comb(n + m, n)
    observed = values[:n].mean() - values[n:].mean()
    exact = splits <= _MOST_SPLITS
    if exact:
        chosen = np.fromiter((i for split in combinations(range(n + m), n) for i in split), dtype=np.intp).reshape(-1, n)
    else:
        generator = np.random.default_rng(0)
        chosen = np.stack([generator.permutation(n + m)[:n] for _ in range(_DRAWN_SPLITS)])
    sums = values[chosen].sum(axis=1)
    differences = sums / n - (values.sum() - sums) / m
    return _permutation(differences, observed, splits, exact=exact)


def flip_signs(differences: Sequence[float]) -> Permutation:
    """Give each difference either sign, in every way, and count means at least as far from 0."""
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    splits = 2**n
    exact = splits <= _MOST_SPLITS
    if exact:
        signs = 1 - 2 * (np.arange(splits)[:, None] >> np.arange(n) & 1)
    else:
        signs = 1 - 2 * np.random.default_rng(0).integers(0, 2, (_DRAWN_SPLITS, n))
    means = (signs * values).mean(axis=1)
    return _permutation(means, values.mean(), splits, exact=exact)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values that hold for several comparisons at once (Holm's step-down), in the order given."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    adjusted = [0.0] * len(ps)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = highest
    return adjusted


def _permutation(found: NDArray[np.float64], observed: float, splits: int, *, exact: bool) -> Permutation:
    """Return twice the smaller tail, as scipy.stats.permutation_test does; of a sample the observed way is one more."""
    slack = _SLACK * max(1.0, abs(observed))
    tails = (int((found >= observed - slack).sum()), int((found <= observed + slack).sum()))
    more = 0 if exact else 1
    p = 2 * (min(tails) + more) / (len(found) + more)
    return Permutation(min(1.0, p), 2 / splits, splits, exact)


def _test(
    kind: Literal["paired", "welch"],
    difference: float,
    error: float,
    df: float,
    effect: float,
    permutation: Permutation,
    *,
    confidence: float,
    power: float,
) -> Test:
    try:
        from scipy.stats import t as student
    except ImportError as missing:
        fix = "comparing groups needs scipy, which is not installed. Type pip install -e '.[report]', or report one group."
        raise ConfigError("the report", [Problem("runs", None, fix)]) from missing
    quantile = float(student.ppf((1 + confidence) / 2, df))
    t = difference / error
    detectable = error * _shift_found(quantile, df, power)
    p = 2 * float(student.sf(abs(t), df))
    low, high = difference - quantile * error, difference + quantile * error
    return Test(kind, difference, low, high, p, float(df), t, effect, detectable, permutation)


def _shift_found(quantile: float, df: float, power: float) -> float:
    """Return which true difference, in standard errors, a test finds with this probability; NaN where none can be computed."""
    from scipy.optimize import brentq
    from scipy.stats import nct

    def surplus(shift: float) -> float:
        below = float(nct.cdf(-quantile, df, shift))  # next to nothing, and NaN for large shifts
        return float(nct.sf(quantile, df, shift)) + (0.0 if math.isnan(below) else below) - power

    if surplus(0.0) >= 0:
        return 0.0
    low, high = 0.0, 1.0
    while surplus(high) < 0:
        low, high = high, 1.25 * high
    return float(brentq(surplus, low, high)) if surplus(high) >= 0 else math.nan
