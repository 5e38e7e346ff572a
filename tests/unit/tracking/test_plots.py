"""Pictures: what they show is what was given, no text is cut off, and no other figure of the process is touched."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.tracking.plots import Mark, save_png, schedule_figure

TRACKING = Path(__file__).resolve().parents[3] / "src" / "tracking"


def drawn(**changes: Any) -> Any:
    """A short run of 30 epochs of 10 steps."""
    epochs = np.arange(300) / 10
    given: dict[str, Any] = {
        "title": "a run",
        "epochs": epochs,
        "rates": np.interp(epochs, [0, 5, 30], [0.01, 0.5, 0.001]),
        "steps_per_epoch": 10,
        "marks": [Mark(5, "warm-up ends"), Mark(20.5, "SWA starts")],
        "sizes": None,
        "log_scale": False,
    }
    return schedule_figure(**(given | changes))


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_curve_goes_through_the_rates_and_the_peak_is_marked() -> None:
    axes = drawn().axes[0]
    curve, peak = axes.lines[:2]
    epochs, rates = curve.get_xdata(), curve.get_ydata()
    np.testing.assert_array_equal(epochs[:-1], np.arange(300) / 10)
    np.testing.assert_array_equal(rates[:-1], np.interp(epochs[:-1], [0, 5, 30], [0.01, 0.5, 0.001]))
    assert (epochs[-1], rates[-1]) == (30, rates[-2]), "the last rate is used for a whole step"
    assert (list(peak.get_xdata()), list(peak.get_ydata())) == ([5], [0.5])
    assert axes.get_xlim() == (0, 30)
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > 0.5
    assert "peak 0.5 at step 50" in texts(axes)
    assert "0.01 first, 0.002996 last" in texts(axes)


def test_axes_tell_their_units_and_the_title_is_the_runs_name() -> None:
    figure = drawn(title="imagenet-resnet50-sgd-s0-0123abcd")
    axes = figure.axes[0]
    assert figure.get_suptitle() == "imagenet-resnet50-sgd-s0-0123abcd"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "learning rate")
    (steps,) = axes.child_axes
    assert steps.get_xlabel() == "step"
    figure.draw_without_rendering()
    assert steps.get_xlim() == pytest.approx((0, 300))


def test_marks_stand_where_they_belong() -> None:
    axes = drawn().axes[0]
    assert [list(line.get_xdata()) for line in axes.lines[2:]] == [[5, 5], [20.5, 20.5]]
    assert texts(axes)[2:] == ["warm-up ends: epoch 5", "SWA starts: epoch 20.5"]


def test_image_sizes_get_a_panel_of_their_own() -> None:
    sizes = [128] * 10 + [160] * 10 + [192] * 10
    rates, panel = drawn(sizes=sizes).axes
    assert rates.get_ylabel() == "learning rate"
    assert panel.get_ylabel() == "image size (px)"
    assert panel.get_xlabel() == "epoch"
    assert panel.get_xlim() == rates.get_xlim() == (0, 30)
    assert list(panel.get_yticks()) == [128, 160, 192]
    curve = panel.lines[0]
    assert curve.get_drawstyle() == "steps-post"
    assert list(curve.get_xdata()) == list(range(31))
    assert list(curve.get_ydata()) == [*sizes, 192]


def test_equal_factors_are_equal_heights_on_demand() -> None:
    assert drawn(log_scale=True).axes[0].get_yscale() == "log"
    assert drawn().axes[0].get_yscale() == "linear"


AWKWARD: dict[str, dict[str, Any]] = {
    "plain": {},
    "long name": {"title": "imagenet-resnet50" + "x" * 230},
    "dollars": {"title": r"$\alpha_{ $5 and \frac"},
    "two panels": {"sizes": list(range(100, 130))},
    "tiny rates": {"rates": np.full(300, 1.23456789e-12)},
    "huge rates": {"rates": np.full(300, 123456.789)},
    "long run": {"epochs": np.arange(300) * 10.0, "steps_per_epoch": 40_000},
    "many marks": {"marks": [Mark(number, f"mark {number}") for number in range(8)]},
    "one step": {"epochs": np.zeros(1), "rates": np.ones(1), "steps_per_epoch": 1, "marks": [], "sizes": [32]},
    "log": {"log_scale": True, "rates": np.geomspace(1, 1e-9, 300)},
}


@pytest.mark.parametrize("name", AWKWARD)
def test_no_text_is_cut_off(tmp_path: Path, name: str) -> None:
    save_png(drawn(**AWKWARD[name]), tmp_path / "schedule.png")
    with Image.open(tmp_path / "schedule.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape[1] == 1080
    edges = [pixels[:4], pixels[-4:], pixels[:, :4], pixels[:, -4:]]
    assert all((edge == 255).all() for edge in edges)
    assert (pixels < 128).sum() > 1000, "something is drawn"


def test_a_picture_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "schedule.png"
    path.write_bytes(b"an older one")
    save_png(drawn(), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        save_png(drawn(), tmp_path / "missing" / "schedule.png")


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        save_png(drawn(), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_drawing_needs_no_screen_and_matplotlib_is_imported_when_it_is_needed() -> None:
    code = """
import sys
from src.tracking.plots import schedule_figure
import numpy as np
assert not any(name.split(".")[0] == "matplotlib" for name in sys.modules), "imported too early"
schedule_figure(title="", epochs=np.arange(2.0), rates=np.ones(2), steps_per_epoch=1, marks=[], sizes=None, log_scale=False)
assert "matplotlib" in sys.modules
assert "matplotlib.pyplot" not in sys.modules, "pyplot keeps every figure"
"""
    subprocess.run([sys.executable, "-c", code], cwd=TRACKING.parents[1], check=True, timeout=120)


def test_only_the_files_of_pictures_import_matplotlib_and_none_pyplot() -> None:
    importing = set()
    for path in TRACKING.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert "matplotlib.pyplot" not in names, path
            if any(name.split(".")[0] == "matplotlib" for name in names):
                importing.add(path.name)
    assert importing <= {"plots.py", "lr_plot.py", "confusion_plot.py"}
