"""timm's operations: its own, on PIL images, beside ours on tensors. Where they differ, by how much is stated here.

Tables agree, blends to one level; Pillow rounds the mean grey of contrast first: two levels. What is resampled agrees to within two
levels inside; along what is uncovered, ours fades into the colour over one pixel, Pillow's does not. timm's PosterizeIncreasing
keeps no bit at magnitude 10, which Pillow refuses; ours is black there.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import NAME_TO_OP
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from src.augment.laws import Layers, timm_values
from src.augment.layers import apply_layers
from src.augment.operations import Operation

FILL = (124, 116, 104)
SIZE = 64
LEVELS = np.array([0.0, 0.1, 0.31, 0.5, 0.7, 0.85, 1.0])
# operation -> timm's name, greatest difference in levels
BOUNDS = {
    **{Operation.AUTO_CONTRAST: ("AutoContrast", 1), Operation.EQUALIZE: ("Equalize", 0), Operation.INVERT: ("Invert", 0)},
    **{Operation.POSTERIZE: ("PosterizeIncreasing", 0), Operation.SOLARIZE: ("SolarizeIncreasing", 0)},
    **{Operation.SOLARIZE_ADD: ("SolarizeAdd", 0), Operation.COLOR: ("ColorIncreasing", 1)},
    **{Operation.CONTRAST: ("ContrastIncreasing", 2), Operation.BRIGHTNESS: ("BrightnessIncreasing", 1)},
    **{Operation.SHARPNESS: ("SharpnessIncreasing", 1)},
}
GEOMETRIC = {
    **{Operation.ROTATE: "Rotate", Operation.SHEAR_X: "ShearX", Operation.SHEAR_Y: "ShearY"},
    **{Operation.TRANSLATE_X: "TranslateXRel", Operation.TRANSLATE_Y: "TranslateYRel"},
}


def ours(operation: Operation, images: torch.Tensor, value: float) -> torch.Tensor:
    count = len(images)
    return apply_layers(images, [Layers(np.full((1, count), operation), np.full((1, count), value), np.zeros(count))], fill=FILL)


def theirs(name: str, images: torch.Tensor, arguments: tuple) -> torch.Tensor:
    keywords = {"fillcolor": FILL, "resample": Image.Resampling.BILINEAR}
    return torch.stack([pil_to_tensor(NAME_TO_OP[name](to_pil_image(image), *arguments, **keywords)) for image in images])


@pytest.mark.parametrize("operation", BOUNDS)
def test_colours_are_timms_within_a_bound(operation, pictures):
    name, bound = BOUNDS[operation]
    images = pictures(8, SIZE)
    for sign in (1.0, -1.0):
        for value in timm_values(operation, LEVELS, np.full(len(LEVELS), sign), SIZE, SIZE).tolist():
            has_none = operation in (Operation.AUTO_CONTRAST, Operation.EQUALIZE, Operation.INVERT)
            whole = operation in (Operation.POSTERIZE, Operation.SOLARIZE, Operation.SOLARIZE_ADD)
            if operation == Operation.POSTERIZE and value == 0:
                assert ours(operation, images, value).max() == 0
                continue
            arguments = () if has_none else (int(value),) if whole else (value,)
            difference = ours(operation, images, value).int() - theirs(name, images, arguments).int()
            assert difference.abs().max() <= bound, (sign, value)


@pytest.mark.parametrize("operation", GEOMETRIC)
def test_geometry_is_timms_away_from_what_is_uncovered(operation, pictures):
    images = pictures(2, SIZE)[1:]  # smooth, as photographs are
    inside = torch.full_like(images, 255)
    signs = np.where(np.arange(len(LEVELS)) % 2, 1.0, -1.0)
    values = timm_values(operation, LEVELS, signs, SIZE, SIZE)
    for level, sign, value in zip(LEVELS, signs, values.tolist(), strict=True):
        share = {Operation.ROTATE: 30.0, Operation.SHEAR_X: 0.3, Operation.SHEAR_Y: 0.3}.get(operation, 0.45)
        found, wanted = ours(operation, images, value), theirs(GEOMETRIC[operation], images, (sign * level * share,))
        black = apply_layers(inside, [Layers(np.array([[operation]]), np.array([[value]]), np.zeros(1))], fill=None)
        difference = (found.int() - wanted.int()).abs()
        assert difference[black == 255].max() <= 2
        assert (black == 255).float().mean() > 0.5
        uncovered = (black == 0) & (wanted == torch.tensor(FILL).view(1, 3, 1, 1))
        assert (difference[uncovered] > 1).sum() == 0
