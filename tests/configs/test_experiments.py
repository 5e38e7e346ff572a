"""Every recipe says what was published (published.py), its header says what else there is to know, and debug works on top."""

import math
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from src.config import Config, load
from src.config.overrides import CONF_DIR, groups
from src.config.writer import load_writer
from src.training.arithmetic import plan_arithmetic, split_batch
from src.training.schedule import build_lr_at, image_size_at
from tests.configs.published import PUBLISHED, Recipe

EXPERIMENTS = groups()["experiment"]
RECIPES = [name for name in EXPERIMENTS if name != "demo"]
DEBUGS = groups()["debug"]
IMAGENET = 1_281_167
NAMES = ("claim", "source", "command", "hardware", "hours", "ran by us")


@cache
def composed(*overrides: str) -> Config:
    """Compose once what several tests look at."""
    return load(overrides)


def equal(found: object, wanted: object) -> bool:
    """Compare, numbers up to rounding."""
    if isinstance(wanted, tuple):
        return isinstance(found, tuple) and len(found) == len(wanted) and all(map(equal, found, wanted))
    if isinstance(wanted, float) and isinstance(found, float):
        return math.isclose(found, wanted, rel_tol=1e-12)
    return found == wanted


def as_configured(config: Config) -> Recipe:
    """Put a configuration into the table's words."""
    optim, augment, average, data, model = config.optim, config.augment, config.average, config.data, config.model
    decays = "all" if optim.decay_norms_and_biases else "no norms" if optim.decay_biases else "no norms and biases"
    operations: tuple[Any, ...] = (augment.operations,)
    if augment.operations.startswith("rand_augment"):
        operations += (augment.num_operations, augment.magnitude, augment.magnitude_std)
    match average.name:
        case "none":
            averaged: tuple[Any, ...] = ("none",)
        case "schedule_free":
            averaged = (average.name, average.recalibrate_images)
        case "ema":
            averaged = (average.name, average.half_life_steps or average.decay, average.every_steps, average.start_epoch)
        case _:
            averaged = (average.name, average.half_life_steps, average.every_steps, average.swa_start_epoch)
    return Recipe(
        epochs=config.epochs,
        batch=config.batch_size,
        optimizer=optim.name,
        momentum=getattr(optim, "momentum", None),
        peak_lr=optim.lr_for(config.batch_size),
        weight_decay=optim.weight_decay,
        decays=decays,
        schedule=config.schedule.name,
        by=config.schedule.by,
        warmup_epochs=config.schedule.warmup_epochs + getattr(config.schedule, "hold_epochs", 0),
        sizes=(data.image_size, data.eval_image_size, data.resize_size),
        smoothing=config.label_smoothing,
        mixup=augment.mixup_alpha,
        cutmix=augment.cutmix_alpha,
        operations=operations,
        repeats=augment.repeats,
        erased=augment.erase_probability,
        average=averaged,
        interpolation=data.interpolation,
        loss=(config.loss, config.bce_threshold, config.bce_sum_classes),
        model=(model.name, model.blur_pool, model.drop_path or 0.0),
        flip_at_test=config.test_time_augmentation == "flip",
        ramp=(data.ramp_from_size, data.ramp_from_epoch, data.ramp_to_epoch) if data.ramp_from_size else None,
        sam=optim.sam_rho,
    )


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_was_published(name: str) -> None:
    config = composed(f"experiment={name}")
    for (field, wanted), found in zip(PUBLISHED[name]._asdict().items(), as_configured(config), strict=True):
        assert equal(found, wanted), f"{field}: {found} instead of {wanted}"
    assert getattr(config.model, "arch", None) == "resnet50"
    assert config.data.eval_interpolation == config.data.interpolation
    assert getattr(config.optim, "nesterov", False) is False
    assert (config.augment.crop_scale, config.augment.flip_probability) == ((0.08, 1.0), 0.5)
    assert (config.augment.mix_probability, config.augment.cutmix_share) == (1.0, 0.5)
    assert config.data.name == ("ffcv" if name.startswith("ffcv") else "imagefolder")


def test_the_table_holds_every_recipe() -> None:
    assert PUBLISHED.keys() == set(RECIPES)
    assert len(PUBLISHED) == 23


def test_no_recipe_is_like_another() -> None:
    """Whoever copies a file and forgets to change it, learns so."""
    seen = [PUBLISHED[name] for name in RECIPES if name != "production_4gpu"]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("a40_adam", {"betas": (0.9, 0.999), "eps": 1e-8}),
        ("a40_sf_sgd", {"r": 0.0, "weight_lr_power": 2.0}),
        ("a40_sam", {"sam_rho": 0.05, "sam_every_steps": 1}),
        ("timm_a1", {"betas": (0.9, 0.999), "eps": 1e-6, "max_grad_norm": 1.0}),
        ("timm_a3", {"betas": (0.9, 0.999), "eps": 1e-6, "max_grad_norm": 1.0}),
    ],
)
def test_an_optimizers_own_numbers(name: str, keys: dict[str, object]) -> None:
    optim = composed(f"experiment={name}").optim
    assert {key: getattr(optim, key) for key in keys} == keys


def half_cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))


def down(peak: float, floor: float, share: float) -> float:
    return floor + (peak - floor) * half_cosine(share)


# total steps; then lr at step 0, at the warm-up's end (or where the schedule first changes), in the middle, at the last step.
RATES = {
    # LinearLR(0.01) for 6,255 steps, then CosineAnnealingLR(106,335 steps, eta_min=1e-5)
    "a40_adam": (112_590, 1e-5, (6_255, 1e-3), 5.5067e-4, down(1e-3, 1e-5, 106_334 / 106_335)),
    "a40_sgd": (112_590, 1e-2, (6_255, 1.0), down(1.0, 1e-5, 50_040 / 106_335), down(1.0, 1e-5, 106_334 / 106_335)),
    "a40_sam": (112_590, 1e-2, (6_255, 1.0), down(1.0, 1e-5, 50_040 / 106_335), down(1.0, 1e-5, 106_334 / 106_335)),
    # schedulefree's warm-up: (step + 1) / 6,255
    "a40_sf_sgd": (112_590, 6 / 6_255, (6_255, 6.0), 6.0, 6.0),
    # OneCycleLR(0.175, 250,200): its peak is at 0.3 x 250,200 - 1
    "onecycle_50": (250_200, 0.175 / 25, (75_059, 0.175), 0.175 * half_cosine((125_100 - 75_059) / 175_140), 0.175 / 25 / 1e4),
    "lightning_100": (500_400, 0.1, (5_004, 0.1 * half_cosine(1 / 100)), 0.05, 0.1 * half_cosine(99 / 100)),
    "composer_90": (225_180, 4e-7, (12_510, 0.4), 0.4 * half_cosine(100_080 / 212_670), 0.4 * half_cosine(212_669 / 212_670)),
    "tv_v1": (450_360, 0.1, (150_120, 0.01), 0.01, 0.001),
    "tv_v2": (750_600, 0.005, (6_255, 0.5), 0.5 * half_cosine(295 / 595), 0.5 * half_cosine(594 / 595)),
    # timm's cosine is counted from epoch 0
    "timm_a1": (375_000, 1e-4, (3_125, down(5e-3, 1e-6, 5 / 600)), down(5e-3, 1e-6, 1 / 2), down(5e-3, 1e-6, 599 / 600)),
    "timm_a2": (187_500, 1e-4, (3_125, down(5e-3, 1e-6, 5 / 300)), down(5e-3, 1e-6, 1 / 2), down(5e-3, 1e-6, 299 / 300)),
    "timm_a3": (62_500, 1e-4, (3_125, down(8e-3, 1e-6, 5 / 100)), down(8e-3, 1e-6, 1 / 2), down(8e-3, 1e-6, 99 / 100)),
    "composer_mild": (22_500, 2.048e-6, (5_000, 2.048), 2.048 * half_cosine(6_250 / 17_500), 2.048 * half_cosine(17_499 / 17_500)),
    # epochs 0 to 7: 1/8 to 8/8
    "nvidia_90": (56_250, 0.256, (4_375, 2.048), 2.048 * half_cosine(37 / 82), 2.048 * half_cosine(81 / 82)),
    "production_4gpu": (225_180, 4e-7, (12_510, 0.4), 0.4 * half_cosine(100_080 / 212_670), 0.4 * half_cosine(212_669 / 212_670)),
    "validation_1h": (3_880, 2e-7, (485, 0.2), 0.2 * half_cosine(1_455 / 3_395), 0.2 * half_cosine(3_394 / 3_395)),
    "colab_sanity": (45, 5e-8, (15, 0.05), 0.05 * half_cosine(7 / 30), 0.05 * half_cosine(29 / 30)),
}
for _epochs in (16, 24, 32, 40, 56, 88):  # np.interp over [0, 2, epochs] of [1e-4 x 1.7, 1.7, 0]
    _total = 312 * _epochs
    RATES[f"ffcv_{_epochs}"] = (
        *(_total, 1.7e-4, (624, 1.7), 1.7 * (_total - _total // 2) / (_total - 624)),
        1.7 / (_total - 624),
    )
IMAGES = {"validation_1h": 25_000, "colab_sanity": 1_000}


@pytest.mark.parametrize("name", RECIPES)
def test_steps_and_learning_rates_on_imagenet(name: str) -> None:
    config = composed(f"experiment={name}")
    arithmetic = plan_arithmetic(config, num_train=IMAGES.get(name, IMAGENET), world_size=1)
    lr_at = build_lr_at(config, steps_per_epoch=arithmetic.steps_per_epoch, total_steps=arithmetic.total_steps)
    total, first, (step, then), middle, last = RATES[name]
    assert arithmetic.total_steps == total
    if config.average.name == "ema_swa":
        assert config.average.swa_lr is None, "the rates below are the schedule's"
    assert lr_at(0) == pytest.approx(first, rel=1e-6)
    assert lr_at(step) == pytest.approx(then, rel=1e-9)
    assert lr_at(total // 2) == pytest.approx(middle, rel=2e-5)
    assert lr_at(total - 1) == pytest.approx(last, rel=1e-6)
    assert max(map(lr_at, range(0, total, max(1, total // 997)))) <= config.optim.lr_for(config.batch_size) * (1 + 1e-12)


@pytest.mark.parametrize("name", [name for name in RECIPES if PUBLISHED[name].ramp])
def test_images_grow_when_published(name: str) -> None:
    config = composed(f"experiment={name}")
    ramp, (largest, _, _) = PUBLISHED[name].ramp, PUBLISHED[name].sizes
    assert ramp is not None
    smallest, first, last = ramp
    sizes = [image_size_at(epoch, config.data) for epoch in range(config.epochs)]
    assert set(sizes[: first + 1]) == {smallest}
    assert set(sizes[last:]) == {largest}
    assert sizes == sorted(sizes)
    assert all(size % config.data.ramp_multiple == 0 for size in sizes)


def header_of(name: str) -> dict[str, list[str]]:
    """Return each field of a recipe's header with its texts; lines that go on are joined."""
    fields: dict[str, list[str]] = {}
    texts: list[str] = []
    for line in (CONF_DIR / "experiment" / f"{name}.yaml").read_text().splitlines()[1:]:
        if not line.startswith("#"):
            break
        if (
            begun := re.match(r"# (claim|source|file|command|hardware|hours|ran by us|differs|silent|note)\s+(\S.*)", line)
        ) is not None:
            texts = fields.setdefault(begun[1], [])
            texts.append(begun[2])
        else:
            assert re.match(r"#\s{10,}\S", line), line
            texts[-1] += " " + line[1:].strip()
    return fields


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_header_says_claim_source_command_hardware_hours_and_whether_we_ran_it(name: str) -> None:
    header = header_of(name)
    assert header.keys() >= set(NAMES)
    assert header["ran by us"] == (["yes"] if name == "demo" else ["no"])
    if name != "demo":
        claim = " ".join(header["claim"])
        assert re.search(r"theirs|claimed by its authors|their goal, not a result|target, not a result|^none: ", claim)
        if not claim.startswith("none: "):
            sizes = PUBLISHED[name].sizes
            assert f"at {sizes[1]} px" in claim and ("resize " + str(sizes[2]) in claim or "centre box" in claim)
        assert re.search(r"theirs|laptop", header["hardware"][0])


def commands(name: str, field: str, module: str) -> Iterator[list[str]]:
    for text in header_of(name).get(field, []):
        words = shlex.split(text.partition("   ")[0])
        assert words[words.index("-m") :][:2] == ["-m", module]
        yield words


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_command_of_a_header_is_valid(name: str) -> None:
    (words,) = commands(name, "command", "src.train")
    config = load(words[words.index("src.train") + 1 :])
    assert f"experiment={name}" in words
    ranks = next((int(word.partition("=")[2]) for word in words if word.startswith("--nproc_per_node=")), 1)
    assert math.prod(split_batch(config, ranks)) * ranks == config.batch_size
    for words in commands(name, "file", "src.ffcv_writer"):
        order = load_writer(words[words.index("src.ffcv_writer") + 1 :])
        assert (order.writer.max_resolution, order.writer.jpeg_quality, order.writer.raw_fraction) == (500, 90, 0.5)
        assert order.writer.write_mode == "proportion"
        assert Path(config.data.path) == Path(order.writer.target)


@pytest.mark.parametrize("debug", DEBUGS)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_debug_works_on_top_of_a_recipe(name: str, debug: str) -> None:
    plain, config = composed(f"experiment={name}"), composed(f"experiment={name}", f"debug={debug}")
    for kept in ("optim", "average", "schedule"):
        assert getattr(config, kept).name == getattr(plain, kept).name
    arithmetic = plan_arithmetic(config, num_train={"overfit": 32, "fast": 1_000, "profile": 100_000}[debug], world_size=1)
    lr_at = build_lr_at(config, steps_per_epoch=arithmetic.steps_per_epoch, total_steps=arithmetic.total_steps)
    peak = max(lr_at(step) for step in range(arithmetic.total_steps))
    published = max(plain.optim.peak_lr, plain.optim.lr_for(plain.batch_size))
    assert 0 < peak <= published * (1 + 1e-12)
    if debug != "profile" and name != "demo":
        assert peak < 0.6 * published, "a rate for hundreds or thousands of images is too much for 32"
    if debug == "overfit":
        assert (arithmetic.total_steps, config.data.subset, config.batch_size) == (60, 32, 32)
        assert image_size_at(0, config.data) == config.data.image_size
        assert (config.augment.mixup_alpha, config.augment.operations, config.augment.repeats) == (0.0, "none", 1)
        assert (config.label_smoothing, config.optim.weight_decay, config.model.drop_path) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("name", "debug"), [("a40_sf_sgd", "fast"), ("composer_90", "overfit"), ("ffcv_16", "profile")])
def test_the_order_of_experiment_and_debug_does_not_matter(name: str, debug: str) -> None:
    assert composed(f"debug={debug}", f"experiment={name}") == composed(f"experiment={name}", f"debug={debug}")
