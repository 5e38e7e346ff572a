"""What is said of two groups: only what their runs can show, and nothing of what was measured in different ways."""

from collections.abc import Callable
from pathlib import Path

import pytest
from scipy import stats

from src.config.report import ReportConfig, load_report
from src.reporting.comparison import Comparison, compare_groups
from src.reporting.groups import Group, group_runs
from tests.unit.reporting.made_runs import run_of

LOW = [92.1, 92.3, 92.2, 92.35, 92.15]
HIGH = [93.0, 93.2, 93.15, 93.3, 93.05]
MakeGroup = Callable[..., Group]


def config(*settings: str) -> ReportConfig:
    return load_report(["runs", *settings])[1]


@pytest.fixture
def make(tmp_path: Path) -> MakeGroup:
    def make_group(rate: float, accuracies: list[float], first_seed: int = 0, **more: object) -> Group:
        runs = [
            run_of(tmp_path / f"{rate}-{seed}", [50.0, value], seed=seed, overrides=[f"optim.peak_lr={rate}"], **more)
            for seed, value in enumerate(accuracies, start=first_seed)
        ]
        (group,), _ = group_runs(runs)
        return group._replace(name=f"peak_lr={rate}")

    return make_group


def one(group: Group, baseline: Group, *settings: str) -> Comparison:
    (found,) = compare_groups([(group, baseline)], config(*settings))
    return found


def test_a_large_difference_of_other_seeds_is_told_by_welchs_test(make: MakeGroup) -> None:
    found = one(make(0.1, HIGH, first_seed=5), make(0.2, LOW))
    assert (found.verdict, found.test and found.test.kind) == ("more than seed noise", "welch")
    assert found.p == pytest.approx(stats.ttest_ind(HIGH, LOW, equal_var=False).pvalue)
    assert "better than peak_lr=0.2 (93.14 against 92.22 %)" in found.headline
    assert any("cannot be paired by seed" in text for text in found.sentences)


def test_the_same_seeds_are_compared_in_pairs(make: MakeGroup) -> None:
    found = one(make(0.1, LOW), make(0.2, HIGH))
    assert (found.verdict, found.test and found.test.kind) == ("more than seed noise", "paired")
    assert found.p == pytest.approx(stats.ttest_rel(LOW, HIGH).pvalue)
    assert "worse than" in found.headline
    assert found.other is not None
    assert any("cannot get below 0.0625" in text for text in found.sentences)


def test_noise_is_called_noise_and_no_proof_of_equality(make: MakeGroup) -> None:
    found = one(make(0.1, LOW), make(0.2, [92.2, 92.2, 92.3, 92.2, 92.25], first_seed=9))
    assert found.verdict == "not more than seed noise"
    assert "no difference is shown" in found.headline
    assert any("does not mean that there is none" in text for text in found.sentences)


def test_one_run_cannot_tell(make: MakeGroup) -> None:
    found = one(make(0.1, [99.0]), make(0.2, LOW))
    assert (found.verdict, found.test, found.p) == ("cannot be told", None, None)
    assert any("One run does not show" in text for text in found.sentences)


def test_runs_without_noise_cannot_tell(make: MakeGroup) -> None:
    found = one(make(0.1, [92.0, 92.0]), make(0.2, [93.0, 93.0]))
    assert (found.verdict, found.test) == ("cannot be told", None)


def test_unfinished_runs_count_in_no_test(make: MakeGroup) -> None:
    found = one(make(0.1, HIGH, epochs=9, status="preempted"), make(0.2, LOW))
    assert (found.verdict, found.first.n) == ("cannot be told", 0)
    assert "no finished run" in found.headline


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("images", 5_000),
        ("resize_size", 32),
        ("image_size", 24),
        ("crop", "centre box"),
        ("interpolation", "area"),
        ("engine", "dali"),
        ("weights", "ema"),
        ("test_time_augmentation", "flip"),
        ("split", "test"),
        ("subset", "small"),
    ],
)
def test_another_protocol_is_refused_until_it_is_allowed_by_name(make: MakeGroup, key: str, value: object) -> None:
    group, baseline = make(0.1, HIGH, first_seed=5, **{key: value}), make(0.2, LOW)
    refused = one(group, baseline)
    assert (refused.verdict, refused.test) == ("not comparable", None)
    assert any(f"allow=[{key}]" in text for text in refused.sentences)
    allowed = one(group, baseline, f"allow=[{key}]")
    assert allowed.verdict == "more than seed noise"
    assert any("ALLOWED TO DIFFER" in text and str(value) in text for text in allowed.sentences)


def test_another_task_is_refused(make: MakeGroup, tmp_path: Path) -> None:
    other = [run_of(tmp_path / f"c{s}", [50.0, v], seed=s, overrides=["data=cifar10"], image_size=28) for s, v in enumerate(HIGH)]
    (group,), _ = group_runs(other)
    found = one(group, make(0.2, LOW))
    assert found.verdict == "not comparable"
    assert any("data: cifar10 against fashion_mnist" in text for text in found.sentences)


def test_several_comparisons_are_adjusted(make: MakeGroup) -> None:
    baseline = make(0.3, LOW)
    pairs = [(make(0.1, HIGH, first_seed=5), baseline), (make(0.2, [92.0, 92.4, 92.5, 92.1], first_seed=20), baseline)]
    found = compare_groups(pairs, config())
    alone = [one(*pair) for pair in pairs]
    assert found[0].p == pytest.approx(2 * (alone[0].p or 0))
    assert found[1].p == alone[1].p


def test_the_best_evaluation_counts_where_it_is_asked_for(make: MakeGroup, tmp_path: Path) -> None:
    baseline = make(0.2, LOW)
    runs = [run_of(tmp_path / f"p{seed}", [value, 10.0], seed=seed) for seed, value in enumerate(HIGH)]
    (group,), _ = group_runs(runs)
    assert one(group, baseline).first.mean == 10.0
    best = one(group, baseline, "counted=best")
    assert best.first.mean == pytest.approx(sum(HIGH) / 5)
    assert any("chosen on these same images" in text for text in best.sentences)
