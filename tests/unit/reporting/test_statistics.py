"""The tests of significance equal scipy's, and are what they say by simulation."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from src.reporting import statistics
from src.reporting.statistics import flip_signs, holm, paired, permute_groups, summarise, welch

A = [92.71, 92.55, 92.89, 92.60, 92.48]
B = [92.95, 92.81, 93.02, 92.70, 92.99]
C = [90.1, 94.2, 91.7]
SETTINGS = {"confidence": 0.95, "power": 0.8}


def difference(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    return np.mean(x, axis=axis) - np.mean(y, axis=axis)


@pytest.mark.parametrize(("first", "second"), [(A, B), (B, A), (A, C), (C, B[:2])])
def test_welch_is_scipys(first: Sequence[float], second: Sequence[float]) -> None:
    ours = welch(first, second, **SETTINGS)
    theirs = stats.ttest_ind(first, second, equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert (ours.t, ours.p, ours.df) == pytest.approx((theirs.statistic, theirs.pvalue, theirs.df), rel=1e-9)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


@pytest.mark.parametrize(("first", "second"), [(A, B), (B, A), (C, A[:3])])
def test_the_paired_test_is_scipys(first: Sequence[float], second: Sequence[float]) -> None:
    ours = paired(first, second, **SETTINGS)
    theirs = stats.ttest_rel(first, second)
    interval = theirs.confidence_interval(0.95)
    assert (ours.t, ours.p, ours.df) == pytest.approx((theirs.statistic, theirs.pvalue, theirs.df), rel=1e-9)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


@pytest.mark.parametrize(("first", "second"), [(A, B), (A, C), ([1.0, 2.0, 2.0], [2.0, 2.0, 3.0])])
def test_the_exact_permutation_test_is_scipys(first: Sequence[float], second: Sequence[float]) -> None:
    ours = permute_groups(first, second)
    theirs = stats.permutation_test((first, second), difference, n_resamples=math.inf, vectorized=True)
    assert ours.exact
    assert ours.splits == len(theirs.null_distribution)
    assert ours.p == pytest.approx(theirs.pvalue)
    assert ours.p >= ours.smallest


def test_the_exact_sign_test_is_scipys() -> None:
    differences = np.subtract(A, B)
    theirs = stats.permutation_test(
        (differences,), lambda x, axis: np.mean(x, axis=axis), permutation_type="samples", n_resamples=math.inf, vectorized=True
    )
    ours = flip_signs(list(differences))
    assert (ours.p, ours.splits, ours.smallest) == (pytest.approx(theirs.pvalue), 32, 2 / 32)


def test_many_runs_are_dealt_out_by_sample_which_is_told_and_near(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = permute_groups(A, B)
    monkeypatch.setattr(statistics, "_MOST_SPLITS", 100)
    sampled = permute_groups(A, B)
    assert (whole.exact, sampled.exact, sampled.splits) == (True, False, whole.splits)
    assert sampled.p == pytest.approx(whole.p, abs=0.005)


def test_p_is_adjusted_as_holm_does() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # Holm's steps by hand
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_the_detectable_difference_is_found_about_as_often_as_is_said() -> None:
    first, second = np.random.default_rng(1).normal(size=(2, 20_000, 5))
    figures = np.array([-1.0, -0.5, 0.0, 0.5, 1.0]) / np.std([-1.0, -0.5, 0.0, 0.5, 1.0], ddof=1)  # a deviation of 1
    shift = welch(figures, figures, **SETTINGS).detectable
    found = (stats.ttest_ind(first + shift, second, axis=1, equal_var=False).pvalue < 0.05).mean()
    assert found == pytest.approx(0.8, abs=0.03)  # Welch's degrees of freedom are estimated anew in each: a little less


def test_hedges_g_is_cohens_d_times_the_usual_correction() -> None:
    pooled = math.sqrt((np.var(A, ddof=1) + np.var(B, ddof=1)) / 2)
    cohen = (np.mean(A) - np.mean(B)) / pooled
    assert welch(A, B, **SETTINGS).effect == pytest.approx(cohen * (1 - 3 / (4 * 8 - 1)), rel=2e-3)  # Hedges' approximation


@pytest.mark.parametrize("values", [[], [1.0], A])
def test_mean_and_deviation_are_numpys(values: list[float]) -> None:
    n, mean, sd = summarise(values)
    assert n == len(values)
    assert (mean == pytest.approx(np.mean(values), rel=1e-14)) if values else math.isnan(mean)
    assert (sd == pytest.approx(np.std(values, ddof=1), rel=1e-12)) if len(values) > 1 else math.isnan(sd)


def test_two_runs_of_each_are_enough_to_compute_with() -> None:
    found = welch([90.0, 90.2], [91.0, 91.3], confidence=0.99, power=0.99)
    assert found.low < found.difference < found.high
    assert found.detectable > 0 or math.isnan(found.detectable)
