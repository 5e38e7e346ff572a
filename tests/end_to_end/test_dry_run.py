"""`dry_run=true` shows the plan of a run, times its parts, draws its schedule, and trains and writes nothing else."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from src.config import load
from src.models.build import build_model

IMAGENET = ("data=synthetic", "data.num_train=1281167", "data.num_val=50000", "data.num_classes=1000")
Plan = Callable[[str], str]
PARTS = ("start_seconds", "training_seconds", "evaluation_seconds", "saving_seconds")


def figures_of(line: str) -> dict[str, Any]:
    """Return what the last line of stdout says."""
    figures: dict[str, Any] = json.loads(line)
    assert figures["status"] == "planned"
    return figures


@pytest.fixture
def plan_of(run_door: Callable[..., Any], tmp_path: Path) -> Callable[..., Plan]:
    """Run the dry run and return what shows a row by its name, its whole line."""

    def plan(*overrides: str, ranks: int | None = None) -> Plan:
        caches = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "MPLCONFIGDIR": matplotlib.get_configdir()}
        done = run_door("dry_run=true", f"runs_dir={tmp_path / 'runs'}", *overrides, env={"COLUMNS": "250", **caches}, ranks=ranks)
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()
        assert "dry run: nothing was trained" in done.stderr
        lines = [*done.stderr.splitlines(), f"figures{line}"]
        return lambda name: next(line for line in lines if line.lstrip("│ ").startswith(name))

    return plan


def test_the_plan_of_resnet50(tmp_path: Path, plan_of: Callable[..., Plan]) -> None:
    data = ["data=synthetic", "data.num_classes=1000", "data.num_train=5000", "data.stored_size=64", "data.image_size=32"]
    run = ["model=resnet50", "epochs=10", "batch_size=500", "max_local_batch_size=4", "run_name=planned", "estimate_seconds=1"]
    shown = plan_of(*data, *run)
    assert "planned" in shown("run ")
    assert "25,557,032" in shown("parameters")
    assert "500 images = 1 rank x 4 a micro-batch x 125 accumulated" in shown("batch")
    assert "100 = 10 epochs x 10" in shown("steps")
    assert "5,000 train, 1,000 val, 1,000 classes" in shown("images")
    assert "0.001 first, 0.1 at step 50 (the peak), 0.1 at step 50 (the middle)" in shown("learning rate")
    assert "the trained weights" in shown("evaluated at")
    assert "GFLOP an image forward" in shown("arithmetic")
    assert "98 MiB" not in shown("checkpoint"), "the optimizer's momentum is in a checkpoint, too"
    assert "195 MiB" in shown("checkpoint")
    for name in ("memory a rank", "one rank trains", "loader must deliver", "training takes"):
        assert any(character.isdigit() for character in shown(name))
    assert re.search(r"a step takes about [\d,]+ s here: estimate_seconds=\d+ measures some", shown("not measured"))
    figures = figures_of(shown("figures").removeprefix("figures"))
    assert (figures["steps"], figures["expected"]) == (100, None)
    assert figures["not_measured"] in shown("not measured")

    assert "2048 x 1 x 1" in shown("layer4 ")
    assert "BatchNorm2d" in shown("bn1")
    assert "2,049,000" in shown("fc")
    picture = tmp_path / "runs" / "planned.schedule.png"
    assert str(picture) in shown("drawn in")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [picture]
    with Image.open(picture) as opened:
        assert opened.size == (1080, 576)


def test_the_arithmetic_of_a40_adam(plan_of: Callable[..., Plan]) -> None:
    """Published: 112,590 steps of 1,024 images; 7.48 hours in one layout, 5.28 in the other."""
    shown = plan_of("experiment=a40_adam", *IMAGENET)
    assert "1,281,167 train, 50,000 val, 1,000 classes" in shown("images")
    assert "112,590 = 90 epochs x 1,251" in shown("steps")
    rates = "1e-05 first, 0.001 at step 6,255 (the peak), 0.00055067 at step 56,295 (the middle), 1e-05 last"
    assert rates in shown("learning rate")
    assert "training in 7.48 h takes 4,281 images/s over all ranks" in shown("target 1")
    assert "training in 5.28 h takes 6,065 images/s over all ranks" in shown("target 2")
    memory = re.search(r"about ([\d.]+) GiB", shown("memory a rank"))
    assert memory is not None
    assert 10 < float(memory[1]) < 40, "256 images of 176 px through ResNet-50 with Adam"


def forward_flops(image_size: int) -> int:
    model = build_model(load(["data=synthetic", "model=small_resnet", "model.width=8"]).model, num_classes=10).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, image_size, image_size))
    return counter.get_total_flops()


def test_everything_at_once_is_told_and_counted(plan_of: Callable[..., Plan], tmp_path: Path) -> None:
    """Growing images, SAM at every second step, an average, a scaled rate, a price: each epoch counts as what it is."""
    shown = plan_of(
        *(
            "data=synthetic",
            "model=small_resnet",
            "model.width=8",
            "epochs=6",
            "batch_size=100",
            "data.num_train=1050",
            "run_name=all",
        ),
        *("data.image_size=32", "data.ramp_from_size=16", "data.ramp_from_epoch=1", "data.ramp_to_epoch=3", "data.ramp_multiple=8"),
        *("optim.sam_rho=0.05", "optim.sam_every_steps=2", "optim.peak_lr=0.1", "optim.lr_scaling=sqrt"),
        *("optim.reference_batch_size=25", "average=ema_swa", "average.decay=null", "average.half_life_steps=50"),
        *("average.every_steps=4", "average.swa_start_epoch=4", "average.swa_lr=0.02", "average.swa_anneal_epochs=1"),
        *("average.recalibrate_images=500", "schedule.warmup_epochs=1"),
        *("price_per_hour=36", "price_currency=CHF", "estimate_seconds=10"),
    )
    assert "60 = 6 epochs x 10" in shown("steps")
    assert "sqrt: 0.1 for 25 images is 0.2 for 100" in shown("lr_scaling")
    assert "0.002 first, 0.2 at step 10 (the peak)" in shown("learning rate")
    assert "0.02 last" in shown("learning rate")
    assert "16 px to epoch 1, 24 px to epoch 2, 32 px from epoch 3" in shown("image sizes")
    assert (
        "their moving average (half-life 50 steps, every 4 steps), from epoch 4 on their mean (once every epoch, lr to 0.02 in "
        "1 epochs); BatchNorm from 500 training images; the trained weights as well"
    ) in shown("evaluated at")
    assert "1.5 passes a step, with SAM every 2 steps" in shown("in all")
    flops = 3 * 1.5 * 1000 * (2 * forward_flops(16) + forward_flops(24) + 3 * forward_flops(32))
    assert f"{flops / 1e18:.3g} EFLOP" in shown("in all")
    with Image.open(tmp_path / "runs" / "all.schedule.png") as opened:
        assert opened.size == (1080, 768), "a second panel for the sizes"
    figures = figures_of(shown("figures").removeprefix("figures"))["expected"]
    check_figures(figures, steps=60, batch_size=100, epochs=6)
    assert list(figures["step_seconds"]) == ["16", "32"], "the smallest and the largest size are measured"
    at_16, at_32 = (figures["step_seconds"][size]["expected"] for size in ("16", "32"))
    assert 60 * min(at_16, at_32) < figures["training_seconds"]["expected"] < 60 * max(at_16, at_32)
    assert figures["cost"]["currency"] == "CHF"
    assert figures["cost"]["total"]["expected"] == pytest.approx(figures["total_seconds"]["expected"] * 36 / 3600, rel=1e-4)
    assert figures["cost"]["epoch"]["most"] == pytest.approx(figures["epoch_seconds"]["most"] * 36 / 3600, rel=1e-4)
    assert "CHF, at 36 CHF an hour" in shown("the run costs")
    assert "sizes between 16 and 32 px" in shown("not covered")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["all.schedule.png"]


def check_figures(figures: dict[str, Any], *, steps: int, batch_size: int, epochs: int) -> None:
    """Check that the parts add up, and that each lies where it may."""
    for name in (*PARTS, "epoch_seconds", "total_seconds"):
        assert 0 <= figures[name]["least"] <= figures[name]["expected"] <= figures[name]["most"], name
        if name != "saving_seconds":
            assert figures[name]["expected"] > 0, name
    for which in ("expected", "least", "most"):
        whole = figures["total_seconds"][which]
        assert whole == pytest.approx(sum(figures[part][which] for part in PARTS), rel=1e-4)
        assert figures["total_hours"][which] == pytest.approx(whole / 3600, rel=1e-4)
    repeated = sum(figures[part]["expected"] for part in PARTS[1:])
    assert figures["epoch_seconds"]["expected"] == pytest.approx(repeated / epochs, rel=1e-4)
    assert figures["images_per_second"] == pytest.approx(steps * batch_size / figures["training_seconds"]["expected"], rel=1e-3)
    assert figures["limited_by"] in ("data", "compute")
    assert figures["loader_images_per_second"] > 0


def test_all_ranks_are_measured_together_and_one_speaks(plan_of: Callable[..., Plan], tmp_path: Path) -> None:
    """33 validation images a batch of 8: one rank has more batches to evaluate than the other."""
    shown = plan_of(
        *("data=synthetic", "model=small_resnet", "epochs=2", "batch_size=20", "data.num_train=200", "data.num_val=33"),
        *("eval_batch_size=8", "data.image_size=16", "data.resize_size=18", "schedule.warmup_epochs=1", "run_name=two"),
        *("estimate_seconds=4", "model.width=4"),
        ranks=2,
    )
    assert "20 images = 2 ranks x 10 a micro-batch" in shown("batch")
    figures = figures_of(shown("figures").removeprefix("figures"))
    assert figures["ranks"] == 2
    check_figures(figures["expected"], steps=20, batch_size=20, epochs=2)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["two.schedule.png"]


def test_a_size_that_the_model_does_not_take_is_named(run_door: Callable[..., Any], tmp_path: Path) -> None:
    sizes = ["data.image_size=224", "data.eval_image_size=192", "data.resize_size=224"]
    done = run_door("dry_run=true", "data=synthetic", "model=vit_b_32", *sizes, f"runs_dir={tmp_path}", "batch_size=2")
    assert done.returncode == 2, done.stderr
    assert "data.eval_image_size = 192: the model does not take images of 192 px" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
