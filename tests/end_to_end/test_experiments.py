"""Every recipe of conf/experiment at work: unshrunk through dry_run, and 20 steps on small real JPEGs with every feature reached.

The runs go through the door's `main` in this process, which saves starting Python sixty times. ResNet-50 it is, but for the first
three recipes with every engine, where ResNet-18 shows the same.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from loguru import logger

from src import probe
from src.config import Config, load
from src.config.overrides import groups
from src.data.beton.writer import write_beton
from src.data.sources.folder import FolderSource
from src.train import main
from src.training.checkpoint_file import load_file
from src.training.schedule import build_lr_at
from tests.conftest import MakeFolder
from tests.end_to_end.small_data import COMBINATIONS, settings_of, write_small_data

RECIPES = [name for name in groups()["experiment"] if name != "demo"]
ONE_A_KIND = ("a40_sf_sgd", "timm_a2", "ffcv_16", "composer_90", "onecycle_50")  # the others train with --long
FIRST_THREE = ("a40_adam", "a40_sf_sgd", "a40_sgd")
EPOCHS, STEPS_AN_EPOCH, BATCH = 4, 5, 16
STEPS = EPOCHS * STEPS_AN_EPOCH
IMAGENET = ("data=synthetic", "data.num_train=1281167", "data.num_val=50000", "data.num_classes=1000")


@pytest.fixture(autouse=True)
def _this_process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The door settles torch's threads and where the log goes, for a process of its own. One core: no thread waits for another."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("COLUMNS", "200")
    cores, threads, level = os.sched_getaffinity(0), torch.get_num_threads(), logging.getLogger("torch").level
    os.sched_setaffinity(0, {max(cores)})
    yield
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)
    logging.getLogger("torch").setLevel(level)
    logger.remove()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_for_all_of_imagenet_passes_its_dry_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(probe._IMAGES, "cpu", 1)  # one image is enough to see that the model takes it
    monkeypatch.setitem(probe._TIMED_STEPS, "cpu", 1)
    config = load([f"experiment={name}", *IMAGENET])
    assert main([f"experiment={name}", *IMAGENET, f"runs_dir={tmp_path}", "dry_run=true", "estimate_seconds=0"]) == 0
    said = capfd.readouterr()
    images = {"validation_1h": 25_000, "colab_sanity": 1_000}.get(name, 1_281_167)
    a_epoch = images // config.batch_size
    assert f"{images:,} train" in said.err
    assert f"{a_epoch * config.epochs:,} = {config.epochs} epochs x {a_epoch:,}" in said.err
    assert "25,557,032" in said.err
    own = load([f"experiment={name}"]).data
    assert (config.data.image_size, config.data.eval_image_size, config.data.resize_size) == (
        *(own.image_size, own.eval_image_size, own.resize_size),
    ), "data=synthetic has sizes of its own, but the recipe's are the stronger"
    assert f"GFLOP an image forward at {own.image_size} px" in said.err
    for hours in config.target_hours:
        assert (
            f"training in {hours:g} h takes {a_epoch * config.batch_size * config.epochs / hours / 3600:,.0f} images/s" in said.err
        )
    plan = json.loads(said.out.splitlines()[-1])
    assert plan["steps"] == a_epoch * config.epochs
    (picture,) = tmp_path.iterdir()
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory, make_folder: MakeFolder) -> Path:
    """JPEGs whose shade tells their class: root/folder/{train,val}, and the same images as root/beton/{train,val}.beton."""
    root = tmp_path_factory.mktemp("colours")
    for split, per_class in (("train", 30), ("val", 8)):
        folder = make_folder(root / "folder" / split, classes=("ant", "bee", "cow"), per_class=per_class, size=48, suffix=".JPEG")
        source = FolderSource(
            folder,
            choose=lambda labels: np.arange(len(labels)),
            cache_dir=root / "cache",
            threads=1,
            progress=lambda done, total: None,
        )
        (root / "beton").mkdir(exist_ok=True)
        write_beton(source, root / "beton" / f"{split}.beton", workers=1, progress=lambda done, total, size: None)
    return root


@pytest.fixture(scope="module")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_data(tmp_path_factory.mktemp("small"))


def shrunk(name: str) -> list[str]:
    """Return what scales a recipe to 4 epochs of 5 steps of 16 images, so that all that it does at some time happens in them."""
    recipe = load([f"experiment={name}"])
    changes = [
        f"epochs={EPOCHS}",
        f"batch_size={BATCH}",
        f"data.subset={STEPS_AN_EPOCH * BATCH}",
        *("data.val_subset=full", "data.image_size=32", "data.eval_image_size=40", "data.resize_size=44"),
        *("eval_batch_size=8", f"eval_every_epochs={EPOCHS}", "keep_top_k=0", "compile=false", "precision=fp32"),
        *("track.log_every_steps=1", "track.progress=false", "save_every_steps=1000000", "run_name=r"),
    ]
    if recipe.optim.name in ("adam", "lamb"):
        changes.append("optim.lr_scaling=sqrt")
    else:  # an eighth of the linear rule: BatchNorm of 8 images does not bear more in the first 20 steps
        changes += ["optim.lr_scaling=linear", f"optim.peak_lr={recipe.optim.peak_lr / 8}"]
    if recipe.max_local_batch_size is not None:
        changes.append(f"max_local_batch_size={BATCH // 2}")  # so that gradients are accumulated
    if recipe.schedule.warmup_epochs:
        changes.append("schedule.warmup_epochs=1")
    if recipe.schedule.name == "step":
        changes.append("schedule.every_epochs=2")
    if recipe.data.ramp_from_size is not None:
        changes += ["data.ramp_from_size=16", "data.ramp_from_epoch=0", "data.ramp_to_epoch=2", "data.ramp_multiple=8"]
    if recipe.average.name != "none":
        changes.append("average.recalibrate_images=32")
    if recipe.average.name in ("ema", "ema_swa"):
        changes += ["average.half_life_steps=4"] if recipe.average.half_life_steps else ["average.decay=0.7"]
        changes += ["average.every_steps=2"] if recipe.average.every_steps > 1 else []
        changes += ["average.start_epoch=1"] if recipe.average.start_epoch else []
    if recipe.average.name == "ema_swa":
        changes.append("average.swa_start_epoch=2")
    return changes


class Trained(NamedTuple):
    """A run of 20 steps: its configuration, the rows of metrics.jsonl by kind, its last checkpoint, and what it said."""

    config: Config
    steps: list[dict[str, Any]]
    epochs: list[dict[str, Any]]
    state: dict[str, Any]
    said: str


def train(capfd: pytest.CaptureFixture[str], tmp_path: Path, *overrides: str) -> Trained:
    code = main([*overrides, f"runs_dir={tmp_path}"])
    said = capfd.readouterr()
    assert code == 0, said.err
    assert json.loads(said.out.splitlines()[-1])["status"] == "finished"
    rows = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    state = load_file(tmp_path / "r" / "checkpoints" / "last.ckpt")
    shutil.rmtree(tmp_path / "r")  # half a gigabyte of checkpoints
    kinds = [[row for row in rows if row["kind"] == kind] for kind in ("train", "epoch")]
    return Trained(load([*overrides, f"runs_dir={tmp_path}"]), *kinds, state, said.err)


def check(run: Trained) -> None:
    """What the metrics and the checkpoint must say about a shrunk recipe."""
    config = run.config
    assert [row["step"] for row in run.steps] == list(range(1, STEPS + 1))
    assert [row["epoch"] for row in run.epochs] == list(range(EPOCHS))
    assert all(np.isfinite(row["train/loss"]) and np.isfinite(row["train/grad_norm"]) for row in run.steps)
    check_rates(run)
    wanted = [16, 24, 32, 32] if config.data.ramp_from_size else [32] * EPOCHS
    assert [row["data/image_size"] for row in run.epochs] == wanted
    assert [row["data/image_size"] for row in run.steps] == [size for size in wanted for _ in range(STEPS_AN_EPOCH)]
    accumulation = 2 if config.max_local_batch_size else 1
    assert f"16 images = 1 rank x {BATCH // accumulation} a micro-batch x {accumulation} accumulated" in run.said

    augment = config.augment
    for key, on in (
        ("augment/mix_lambda", augment.mixup_alpha + augment.cutmix_alpha > 0),
        ("augment/magnitude", augment.operations != "none"),
        ("augment/erased", augment.erase_probability > 0),
    ):
        assert all((key in row) == on for row in run.epochs), key

    last = run.epochs[-1]
    entry = run.state["history"][-1]
    weights = {"none": "trained", "ema_swa": "swa"}.get(config.average.name, config.average.name)
    protocol = {"images": 24, "resize_size": 44, "image_size": 40, "weights": weights, "precision": "fp32"}
    assert protocol.items() <= entry["protocol"].items()
    assert entry["protocol"]["test_time_augmentation"] == config.test_time_augmentation
    assert 0 <= last["val/acc1"] <= last["val/acc5"] == 100.0
    assert ("val/trained_acc1" in last) == (config.average.name != "none")
    assert (run.state["evaluation"] is not None) == (config.average.name != "none")


def check_rates(run: Trained) -> None:
    """Every logged rate is the schedule's, and the optimizer took it."""
    config, rates = run.config, [row["train/lr"] for row in run.steps]
    lr_at = build_lr_at(config, steps_per_epoch=STEPS_AN_EPOCH, total_steps=STEPS)
    assert rates == [lr_at(step) for step in range(STEPS)]
    peak, schedule = config.optim.lr_for(BATCH), config.schedule
    if schedule.warmup_epochs:
        assert rates[0] == pytest.approx(peak * schedule.warmup_from)
        assert rates[0] < max(rates)
    if not getattr(schedule, "counts_warmup", False):
        assert max(rates) == pytest.approx(peak)
    assert max(rates) <= peak * (1 + 1e-12)
    if schedule.by == "epoch":
        assert all(len(set(rates[first : first + STEPS_AN_EPOCH])) == 1 for first in range(0, STEPS, STEPS_AN_EPOCH))
    if schedule.name != "constant":
        assert rates[-1] < 0.6 * max(rates)
        assert all(one >= other for one, other in pairwise(rates[STEPS_AN_EPOCH:]))
    for group in run.state["optimizer"]["param_groups"]:
        assert group["lr"] == rates[-1] * group["lr_scale"]


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in ONE_A_KIND else pytest.mark.long) for name in RECIPES])
def test_a_recipe_trains_20_steps_on_small_jpegs(
    name: str, colours: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    where = (f"data.path={colours}/{'beton' if name.startswith('ffcv') else 'folder'}", f"data.cache_dir={colours}/cache")
    run = train(capfd, tmp_path, f"experiment={name}", *shrunk(name), *where)
    check(run)
    if not run.config.augment.mixup_alpha:  # mixed targets are not learned in 20 steps
        assert run.epochs[-1]["train/loss"] < run.epochs[0]["train/loss"]


def test_sharpness_aware_steps_make_the_difference_between_a40_sam_and_a40_sgd(
    colours: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    where = (f"data.path={colours}/folder", f"data.cache_dir={colours}/cache", "model.arch=resnet18", "epochs=1")
    runs = [train(capfd, tmp_path, f"experiment={name}", *shrunk(name), *where) for name in ("a40_sgd", "a40_sam")]
    first, later = ([[row["train/loss"] for row in run.steps][part] for run in runs] for part in (slice(0, 1), slice(1, None)))
    assert first[0] == first[1], "the first step's loss is of the same weights and images"
    assert all(one != other for one, other in zip(*later, strict=True))


@pytest.mark.parametrize(
    ("name", "combination"),
    [
        pytest.param(name, combination, marks=[] if name == "a40_sf_sgd" or combination == "nvimgcodec/beton" else pytest.mark.long)
        for name in FIRST_THREE
        for combination in COMBINATIONS
    ],
)
def test_the_first_three_train_with_every_engine(
    name: str, combination: str, small_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(combination, small_data)
    sizes = ("data.image_size=32", "data.eval_image_size=40", "data.resize_size=44")
    run = train(capfd, tmp_path, f"experiment={name}", *shrunk(name), *settings, *sizes, "model.arch=resnet18")
    assert run.config.data.engine == combination.partition("/")[0]
    assert run.state["pixels"]["engine"] == run.config.data.engine
    assert len(run.steps) == STEPS and run.steps[-1]["data/bad_images"] == 0
    assert all(np.isfinite(row["train/loss"]) for row in run.steps)
    check_rates(run)
    assert run.state["history"][-1]["protocol"]["images"] == 50
    assert 0 <= run.epochs[-1]["val/acc1"] <= run.epochs[-1]["val/acc5"] <= 100
    assert mean(row["train/loss"] for row in run.epochs) < 4


@pytest.mark.parametrize(
    ("name", "debug"), [("a40_sf_sgd", "fast"), ("timm_a1", "fast"), ("ffcv_16", "overfit"), ("composer_90", "profile")]
)
def test_debug_runs_on_top_of_a_recipe(
    name: str, debug: str, colours: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    where = (f"data.path={colours}/{'beton' if name.startswith('ffcv') else 'folder'}", f"data.cache_dir={colours}/cache")
    small = ("data.image_size=32", "data.eval_image_size=40", "data.resize_size=44", "model=small_resnet", "data.val_subset=full")
    size = (
        f"batch_size={5 if debug == 'profile' else 30}",
        "eval_batch_size=8",
        "keep_top_k=0",
        "track.log_every_steps=1",
        "average.recalibrate_images=30",
    )
    own = size[: 5 if load([f"experiment={name}"]).average.name != "none" else 4]
    arguments = [f"experiment={name}", f"debug={debug}", *where, *small, *own, "run_name=r", f"runs_dir={tmp_path}"]
    assert main(arguments) == 0, capfd.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows if row["kind"] == "train"]
    assert len(losses) == {"fast": 2 * 3, "overfit": 60, "profile": 18}[debug]
    assert all(np.isfinite(losses))
    if debug == "overfit":
        assert losses[-1] < 0.1 < losses[0]
    assert (tmp_path / "r" / "profile").exists() == (debug == "profile")
    shutil.rmtree(tmp_path / "r")
