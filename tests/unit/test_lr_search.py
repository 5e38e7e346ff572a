"""The learning-rate search without a model: the rates, the smoothing, what is suggested, what is typed, what is drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.config import ConfigError
from src.config.lr_finder import LrRange, load_finder
from src.tracking import lr_plot
from src.tracking.lr_plot import Line, draw_lines
from src.training.lr_curve import Curve, MovingAverage, Point, Suggestion, local_lines, lr_of, suggest

RANGE = LrRange(1e-7, 10.0, 100)
STEEPEST, LOWEST = 10**-2.0, 10**-0.5


def curve_of(losses: Any, within: LrRange = RANGE, ended: Any = "at end_lr") -> Curve:
    average = MovingAverage(0.05)
    points = [Point(lr_of(within, k), float(loss), average.add(float(loss))) for k, loss in enumerate(losses)]
    return Curve(within, tuple(points), ended)


def course(within: LrRange, *, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """A loss that falls fastest at STEEPEST, is lowest at LOWEST, and explodes after it."""
    x = np.log10([lr_of(within, k) for k in range(within.num_iter)])
    fall = 2.3 - 1.2 / (1 + np.exp(-4 * (x - np.log10(STEEPEST))))
    clean = fall + np.where(x > np.log10(LOWEST), (x - np.log10(LOWEST)) * 2, 0.0)
    return clean + noise * np.random.default_rng(seed).standard_normal(within.num_iter)


def ask(curve: Curve) -> Suggestion:
    return suggest(curve, skip_first=10, skip_last=5, window_decades=1.0)


@pytest.mark.parametrize("within", [RANGE, LrRange(1e-5, 1.0, 37), LrRange(0.3, 0.4, 1000)])
def test_the_rate_grows_by_one_factor_from_start_to_end(within: LrRange) -> None:
    rates = [lr_of(within, k) for k in range(within.num_iter)]
    assert (rates[0], rates[-1]) == (within.start_lr, within.end_lr)
    np.testing.assert_allclose(rates, np.geomspace(within.start_lr, within.end_lr, within.num_iter), rtol=1e-12)


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_the_average_weighs_every_loss_by_its_age(share: float) -> None:
    losses = np.random.default_rng(0).random(50)
    average = MovingAverage(share)
    for n, loss in enumerate(losses, start=1):
        weights = share * (1 - share) ** np.arange(n)[::-1]
        assert average.add(loss) == pytest.approx((weights * losses[:n]).sum() / weights.sum(), rel=1e-12)


@pytest.mark.parametrize("width", [0.5, 1.0, 100.0, 1e-9])
def test_lines_are_least_squares_lines(width: float) -> None:
    places, values = np.log10(np.geomspace(1e-7, 10, 60)), np.random.default_rng(1).random(60)
    heights, slopes = local_lines(places, values, width)
    for k, place in enumerate(places):
        near = [j for j in range(60) if abs(j - k) <= 1 or abs(places[j] - place) <= width / 2]
        slope, height = np.polyfit(places[near] - place, values[near], 1)
        assert (slopes[k], heights[k]) == (pytest.approx(slope, abs=1e-9), pytest.approx(height, abs=1e-9))


@pytest.mark.parametrize("num_iter", [60, 100, 400, 2000])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_suggested_does_not_depend_on_the_number_of_steps_or_on_noise(num_iter: int, seed: int) -> None:
    within = LrRange(1e-7, 10.0, num_iter)
    found = ask(curve_of(course(within, noise=0.05, seed=seed), within))
    assert found.steepest is not None and found.tenth_of_minimum is not None
    assert STEEPEST / 2 < found.steepest < 2 * STEEPEST
    rates, clean = [lr_of(within, k) for k in range(num_iter)], course(within)
    assert np.interp(np.log(10 * found.tenth_of_minimum), np.log(rates), clean) < clean.min() + 0.05  # a single loss's deviation
    assert (len(found.smoothed), found.remark) == (num_iter, "")


def test_the_suggestions_are_rates_of_steps_at_which_the_course_is_steepest_and_lowest() -> None:
    found, clean = ask(curve_of(course(RANGE))), course(RANGE)
    rates = np.array([lr_of(RANGE, k) for k in range(100)])
    assert found.steepest in rates
    assert found.steepest is not None and found.tenth_of_minimum is not None
    assert abs(np.log10(found.steepest / rates[np.gradient(clean, np.log10(rates)).argmin()])) < 0.1
    assert 10 * found.tenth_of_minimum == pytest.approx(rates[np.argmin(found.smoothed[10:95]) + 10])


@pytest.mark.parametrize("height", [3.0, 100.0, 1e30])
def test_how_far_a_loss_explodes_changes_nothing(height: float) -> None:
    losses = course(RANGE, noise=0.03)
    rates = np.array([lr_of(RANGE, k) for k in range(100)])
    exploded = np.where(rates > 0.5, losses.min() + (losses - losses.min()) * height, losses)
    other = np.where(rates > 0.5, 10.0, losses)
    assert ask(curve_of(exploded))[1:] == ask(curve_of(other))[1:]
    found = ask(curve_of(exploded))
    assert found.steepest is not None and STEEPEST / 2 < found.steepest < 2 * STEEPEST


def test_a_recovery_after_the_explosion_is_not_taken_for_learning() -> None:
    losses = course(RANGE, noise=0.03)
    losses[92:96] = (9.0, 6.0, 4.0, 2.0)
    found = ask(curve_of(losses))
    assert found.steepest is not None and STEEPEST / 2 < found.steepest < 2 * STEEPEST


@pytest.mark.parametrize(("num_iter", "most"), [(25, 4), (100, 0), (400, 0)])
def test_noise_alone_suggests_nothing(num_iter: int, most: int) -> None:
    within = LrRange(1e-7, 10.0, num_iter)
    noise = [2.3 + 0.05 * np.random.default_rng(seed).standard_normal(num_iter) for seed in range(200)]
    found = [ask(curve_of(losses, within)) for losses in noise]
    assert sum(one.steepest is not None for one in found) <= most
    none = next(one for one in found if one.steepest is None)
    assert none.tenth_of_minimum is None
    assert "never fell" in none.remark


def test_a_loss_that_only_rises_suggests_nothing() -> None:
    assert ask(curve_of(2.3 + np.linspace(0, 1, 100) ** 4 * 50)).steepest is None


@pytest.mark.parametrize("steps", [0, 1, 19])
def test_too_few_steps_suggest_nothing_and_say_what_to_change(steps: int) -> None:
    found = ask(curve_of(course(RANGE)[:steps], ended="not finite"))
    assert (found.steepest, found.tenth_of_minimum) == (None, None)
    assert f"not finite any more after {steps} of 100 steps" in found.remark
    assert "Lower start_lr" in found.remark


def test_a_loss_that_still_falls_at_the_end_is_told() -> None:
    within = LrRange(1e-7, 1e-2, 100)
    found = ask(curve_of(course(within, noise=0.01), within))
    assert found.steepest is not None
    assert "end_lr" in found.remark


def test_lists_are_paired_and_one_value_serves_for_all() -> None:
    assert load_finder([]).ranges == (RANGE,)
    order = load_finder(["start_lr=1e-7,1e-5,1e-3", "end_lr=10,1,100", "num_iter=50", "optim=adam", "epochs=7"])
    assert order.ranges == ((1e-7, 10.0, 50), (1e-5, 1.0, 50), (1e-3, 100.0, 50))
    assert (order.config.optim.name, order.config.epochs) == ("adam", 7)
    assert load_finder(["start_lr=[1e-4,1e-3]", "num_iter=[30,40]"]).ranges == ((1e-4, 10.0, 30), (1e-3, 10.0, 40))


def test_every_mistake_is_told_at_once_with_the_nearest_key() -> None:
    with pytest.raises(ConfigError) as caught:
        load_finder(["star_lr=1", "num_iters=3", "end_lr=x", "diverge=1", "optim.momentun=0.5", "smoothing=0", "start_lr=[]"])
    said = {problem.path: problem.fix for problem in caught.value.problems}
    assert said.keys() == {"star_lr", "num_iters", "end_lr", "diverge", "optim.momentun", "smoothing", "start_lr"}
    assert "start_lr" in said["star_lr"] and "num_iter?" in said["num_iters"] and "optim.momentum" in said["optim.momentun"]


@pytest.mark.parametrize(
    ("typed", "path", "words"),
    [
        (["start_lr=1e-4,1e-3", "end_lr=1,2,3"], "start_lr", "Give 3, or one for all"),
        (["start_lr=5", "end_lr=1"], "end_lr", "above start_lr=5"),
        (["start_lr=1e-5,3", "end_lr=2"], "end_lr", "above start_lr=3"),
        (["num_iter=24"], "num_iter", "num_iter=25 or more"),
        (["num_iter=1.5"], "num_iter", "whole number"),
        (["start_lr=-1"], "start_lr", "more than 0"),
        (["start_lr"], "start_lr", "key=value"),
    ],
)
def test_ranges_that_cannot_be_are_refused(typed: list[str], path: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_finder(typed)
    (problem,) = caught.value.problems
    assert problem.path == path
    assert words in problem.fix


def line_of(curve: Curve) -> Line:
    found = ask(curve)
    columns = [[*column] for column in zip(*curve.points, strict=True)] or [[], [], []]
    marks = {"steepest descent": found.steepest, "tenth": found.tenth_of_minimum}
    return Line("a $range", *columns, found.smoothed, {name: rate for name, rate in marks.items() if rate is not None})


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is drawn, as matplotlib has it."""
    kept: list[Any] = []
    real = lr_plot.save_png
    monkeypatch.setattr(lr_plot, "save_png", lambda figure, path: (kept.append(figure), real(figure, path)))
    return kept


def test_a_plot_shows_the_fall_and_names_what_is_suggested(tmp_path: Path, figures: list[Any]) -> None:
    losses = course(RANGE, noise=0.03)
    losses[-4:] = (1e3, 1e6, 1e12, 1e30)
    line = line_of(curve_of(losses))
    draw_lines(tmp_path / "one.png", [line], title="one $ of $ many")
    assert size_of(tmp_path / "one.png") == (1080, 624)
    (axes,) = figures[0].axes
    low, high = axes.get_ylim()
    assert low < losses.min() < losses[:70].max() < high < 4
    assert axes.get_xscale() == "log"
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert f"steepest descent: {line.marks['steepest descent']:.3g}" in texts
    assert f"tenth: {line.marks['tenth']:.3g}" in texts


def test_several_ranges_have_a_colour_each(tmp_path: Path, figures: list[Any]) -> None:
    lines = [line_of(curve_of(course(LrRange(start, 10.0, 100), noise=0.03))) for start in (1e-7, 1e-5, 1e-3)]
    draw_lines(tmp_path / "all.png", lines, title="all")
    bold = {line.get_color() for line in figures[0].axes[0].get_lines() if line.get_linewidth() > 2}
    assert len(bold) == 3


@pytest.mark.parametrize("losses", [[], [2.3], [2.3] * 100])
def test_a_search_that_found_nothing_is_drawn_too(tmp_path: Path, losses: list[float]) -> None:
    draw_lines(tmp_path / "none.png", [line_of(curve_of(losses))], title="none")
    assert size_of(tmp_path / "none.png") == (1080, 624)
