"""Laws: operations, magnitudes and signs as often as the reference draws them, and a pure function of the key."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, ks_2samp
from timm.data.auto_augment import rand_augment_transform
from torchvision.transforms.v2 import ColorJitter, RandAugment, TrivialAugmentWide

from src.augment.laws import (
    RAND_AUGMENT,
    TRIVIAL_AUGMENT_WIDE,
    draw_jitter,
    draw_rand_augment,
    draw_rand_augment_timm,
    draw_trivial_augment_wide,
    value_table,
)
from src.augment.operations import BLENDED, Operation

DRAWN = 20_000
SIDES = {"height": 40, "width": 24}


def recording(law):
    """Make the reference record (operation, magnitude) instead of changing pixels."""

    class Recording(law):
        seen: list[tuple[str, float]]

        def _apply_image_or_video_transform(self, image, transform_id, magnitude, interpolation, fill):
            self.seen.append((transform_id, magnitude))
            return image

    return Recording


def reference_draws(law, count: int, **arguments) -> list[tuple[str, float]]:
    torch.manual_seed(3)
    transform = recording(law)(**arguments)
    transform.seen = []
    image = torch.zeros(3, SIDES["height"], SIDES["width"], dtype=torch.uint8)
    for _ in range(count):
        transform(image)
    return transform.seen


def as_value(name: str, magnitude: float) -> tuple[str, float]:
    """Say what the reference does with a magnitude, as _apply_image_or_video_transform reads it."""
    operation = {"AutoContrast": Operation.AUTO_CONTRAST, "ShearX": Operation.SHEAR_X, "ShearY": Operation.SHEAR_Y}.get(name)
    operation = operation or {"TranslateX": Operation.TRANSLATE_X, "TranslateY": Operation.TRANSLATE_Y}.get(name)
    operation = Operation[name.upper()] if operation is None else operation
    if operation in BLENDED:
        return operation.name, 1.0 + magnitude
    if operation in (Operation.TRANSLATE_X, Operation.TRANSLATE_Y):
        return operation.name, float(int(magnitude))
    if operation == Operation.SOLARIZE:
        levels = torch.arange(256, dtype=torch.uint8)
        return operation.name, float((levels < 255 * magnitude).sum())  # the first that is inverted
    return operation.name, magnitude


def same_distribution(ours: list, theirs: list) -> float:
    """Return the p-value of a chi-square test over every (operation, value); rare ones are taken together."""
    counts, others = Counter(ours), Counter(theirs)
    assert set(counts) == set(others)
    common = [kind for kind in counts if counts[kind] + others[kind] >= 20]
    table = [[counter[kind] for kind in common] for counter in (counts, others)]
    rest = [sum(counter.values()) - sum(row) for counter, row in zip((counts, others), table, strict=True)]
    if sum(rest):
        table = [[*row, left] for row, left in zip(table, rest, strict=True)]
    return chi2_contingency(table).pvalue


def pairs(layers) -> list[tuple[str, float]]:
    return [(Operation(int(o)).name, float(v)) for o, v in zip(layers.operations.flat, layers.values.flat, strict=True)]


def test_rand_augment_draws_as_torchvision_does(keys):
    theirs = [as_value(*pair) for pair in reference_draws(RandAugment, DRAWN // 2, num_ops=2, magnitude=9)]
    ours = pairs(draw_rand_augment(keys(DRAWN // 2), num_operations=2, magnitude=9, **SIDES))
    assert same_distribution(ours, theirs) > 1e-3


def test_trivial_augment_wide_draws_as_torchvision_does(keys):
    theirs = [as_value(*pair) for pair in reference_draws(TrivialAugmentWide, DRAWN)]
    ours = pairs(draw_trivial_augment_wide(keys(DRAWN), **SIDES))
    assert same_distribution(ours, theirs) > 1e-3


@pytest.mark.parametrize(("ours", "theirs"), [(RAND_AUGMENT, RandAugment), (TRIVIAL_AUGMENT_WIDE, TrivialAugmentWide)])
@pytest.mark.parametrize("size", [(32, 32), (128, 128), (176, 176), (224, 224), (288, 288), (40, 24)])
def test_every_magnitude_is_the_references(ours, theirs, size):
    table = value_table(ours, *size)
    for operation, (name, (magnitudes_of, signed)) in enumerate(theirs._AUGMENTATION_SPACE.items()):
        magnitudes = magnitudes_of(31, *size)
        for place in range(31):
            magnitude = 0.0 if magnitudes is None else float(magnitudes[place])
            assert table[0, operation, place] == as_value(name, magnitude)[1], (name, place)
            assert table[1, operation, place] == as_value(name, -magnitude if signed else magnitude)[1], (name, place)


def timm_draws(count: int, magnitude: int, deviation: float) -> dict[str, list[float]]:
    """Let timm draw; record each applied operation's argument."""
    law = rand_augment_transform(f"rand-m{magnitude}-n2-mstd{deviation}-inc1", {"img_mean": (124, 116, 104)})
    seen: dict[str, list[float]] = {}
    for operation in law.ops:

        def record(image, *arguments, name=operation.name, **_):
            seen.setdefault(name, []).append(float(arguments[0]) if arguments else 0.0)
            return image

        operation.aug_fn = record
    random.seed(5)
    np.random.seed(5)
    for _ in range(count):
        law(None)
    return seen


TIMM_NAMES = {
    **{"AutoContrast": Operation.AUTO_CONTRAST, "Equalize": Operation.EQUALIZE, "Invert": Operation.INVERT},
    **{"Rotate": Operation.ROTATE, "PosterizeIncreasing": Operation.POSTERIZE, "SolarizeIncreasing": Operation.SOLARIZE},
    **{"SolarizeAdd": Operation.SOLARIZE_ADD, "ColorIncreasing": Operation.COLOR, "ContrastIncreasing": Operation.CONTRAST},
    **{"BrightnessIncreasing": Operation.BRIGHTNESS, "SharpnessIncreasing": Operation.SHARPNESS},
    **{"ShearX": Operation.SHEAR_X, "ShearY": Operation.SHEAR_Y},
    **{"TranslateXRel": Operation.TRANSLATE_X, "TranslateYRel": Operation.TRANSLATE_Y},
}


@pytest.mark.parametrize(("magnitude", "deviation"), [(7, 0.5), (9, 0.0), (1, 2.0)])
def test_timms_rand_augment_draws_as_timm_does(magnitude, deviation, keys):
    theirs = timm_draws(DRAWN // 2, magnitude, deviation)
    layers = draw_rand_augment_timm(
        keys(DRAWN // 2), num_operations=2, magnitude=float(magnitude), deviation=deviation, height=100, width=200
    )
    assert set(theirs) == set(TIMM_NAMES)
    counts = [[len(theirs[name]), int((layers.operations == operation).sum())] for name, operation in TIMM_NAMES.items()]
    skipped = [DRAWN - sum(row[0] for row in counts), int((layers.operations == Operation.IDENTITY).sum())]
    assert chi2_contingency(np.array([*counts, skipped])).pvalue > 1e-3
    assert 0.47 < skipped[1] / DRAWN < 0.53
    for name, operation in TIMM_NAMES.items():
        values = layers.values[layers.operations == operation]
        if operation == Operation.TRANSLATE_X:  # timm's argument is the share that is sampled further right
            values = -values / 200
        if operation == Operation.TRANSLATE_Y:
            values = -values / 100
        if deviation == 0:
            assert sorted(set(np.round(values, 9))) == pytest.approx(sorted(set(np.round(theirs[name], 9)))), name
        else:
            assert ks_2samp(values, theirs[name]).pvalue > 1e-4, name


def test_jitter_draws_as_torchvision_does(keys):
    settings = {"brightness": 0.4, "contrast": 1.5, "saturation": 0.2, "hue": 0.1}
    layers, law = draw_jitter(keys(5_000), **settings), ColorJitter(**settings)
    torch.manual_seed(4)
    theirs = [law.make_params([]) for _ in range(5_000)]
    for name, operation in zip(settings, (Operation.BRIGHTNESS, Operation.CONTRAST, Operation.COLOR, Operation.HUE), strict=True):
        factors = layers.values.T[operation == layers.operations.T]
        assert len(factors) == 5_000
        assert ks_2samp(factors, [params[f"{name}_factor"] for params in theirs]).pvalue > 1e-4
    orders = Counter(map(tuple, layers.operations.T.tolist()))
    assert len(orders) == 24
    assert 5_000 / 24 * 0.6 < min(orders.values()) < max(orders.values()) < 5_000 / 24 * 1.4


def test_jitter_leaves_out_what_is_off(keys):
    layers = draw_jitter(keys(50), brightness=0.0, contrast=0.3, saturation=0.0, hue=0.0)
    assert layers.operations[0].tolist() == [Operation.CONTRAST] * 50
    assert set(layers.operations[1:].flat) == {Operation.IDENTITY}


def test_draws_belong_to_the_key(keys):
    every = keys(64)
    for draw in (
        lambda some: draw_rand_augment(some, num_operations=3, magnitude=9, **SIDES),
        lambda some: draw_trivial_augment_wide(some, **SIDES),
        lambda some: draw_rand_augment_timm(some, num_operations=2, magnitude=7.0, deviation=0.5, **SIDES),
        lambda some: draw_jitter(some, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    ):
        together, turned = draw(every), draw(every[::-1])
        for whole, other in zip(together, turned, strict=True):
            assert np.array_equal(whole, other[..., ::-1])
        alone = [draw(every[place : place + 1]) for place in range(64)]
        for place, whole in enumerate(together):
            assert np.array_equal(np.concatenate([each[place] for each in alone], axis=-1), whole)


def test_strength_is_the_mean_share_of_the_greatest_magnitude(keys):
    layers = draw_rand_augment(keys(500), num_operations=2, magnitude=9, **SIDES)
    share = np.full(layers.operations.shape, 9 / 30)
    share[layers.operations == Operation.IDENTITY] = 0
    share[np.isin(layers.operations, [Operation.AUTO_CONTRAST, Operation.EQUALIZE])] = 1
    assert layers.strengths == pytest.approx(share.mean(axis=0))
    layers = draw_rand_augment_timm(keys(500), num_operations=1, magnitude=10.0, deviation=0.0, **SIDES)
    assert set(layers.strengths) == {0.0, 1.0}
