"""Operations: torchvision's pixels bit for bit at every magnitude, and the same for an image alone or among any others."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode, RandAugment, TrivialAugmentWide, functional

from src.augment.laws import BINS, RAND_AUGMENT, TRIVIAL_AUGMENT_WIDE, Layers, value_table
from src.augment.layers import apply_layers
from src.augment.operations import Operation

SIZES = [32, 128, 176, 224, 288]
LAWS = {
    "rand_augment": (RAND_AUGMENT, RandAugment(interpolation=InterpolationMode.BILINEAR)),
    "trivial_augment_wide": (TRIVIAL_AUGMENT_WIDE, TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)),
}
THEIRS = (
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness"),
    *("Posterize", "Solarize", "AutoContrast", "Equalize"),
)
# a value of every operation that is none of the laws' bins
VALUES = {
    **{Operation.SHEAR_X: 0.21, Operation.SHEAR_Y: -0.4, Operation.TRANSLATE_X: -7.0, Operation.TRANSLATE_Y: 5.3},
    **{Operation.ROTATE: -21.7, Operation.BRIGHTNESS: 1.37, Operation.COLOR: 0.23, Operation.CONTRAST: 1.61},
    **{Operation.SHARPNESS: 1.81, Operation.POSTERIZE: 3.0, Operation.SOLARIZE: 97.0, Operation.SOLARIZE_ADD: 61.0},
    **{Operation.HUE: 0.173, Operation.AUTO_CONTRAST: 0.0, Operation.EQUALIZE: 0.0, Operation.INVERT: 0.0, Operation.IDENTITY: 0.0},
}


def done(operation: Operation, images: torch.Tensor, values: list[float], fill=None) -> torch.Tensor:
    """Apply one operation to each image, with a value of its own."""
    layer = Layers(np.full((1, len(images)), operation), np.array([values]), np.zeros(len(images)))
    return apply_layers(images, [layer], fill=fill)


@pytest.mark.parametrize(("size", "every"), [(32, 1), (128, 3), (176, 10), (224, 10), (288, 15)])
@pytest.mark.parametrize("law", LAWS)
def test_every_bin_gives_torchvisions_pixels(law, size, every, pictures):
    ours, theirs = LAWS[law]
    table = value_table(ours, size, size)
    images = pictures(4, size)
    for operation, (name, (magnitudes_of, signed)) in enumerate(theirs._AUGMENTATION_SPACE.items()):
        magnitudes = magnitudes_of(BINS, size, size)
        magnitudes = [0.0] * BINS if magnitudes is None else [float(magnitude) for magnitude in magnitudes]
        for sign in (0, 1) if signed else (0,):
            for place in sorted({*range(0, BINS, every), 9}):
                magnitude = -magnitudes[place] if sign else magnitudes[place]
                wanted = [
                    theirs._apply_image_or_video_transform(image, name, magnitude, theirs.interpolation, theirs._fill)
                    for image in images
                ]
                found = done(Operation(operation), images, [table[sign, operation, place]] * len(images))
                assert torch.equal(found, torch.stack(wanted)), (name, place, sign)


def test_the_laws_name_torchvisions_operations_in_its_order():
    for _, theirs in LAWS.values():
        assert list(theirs._AUGMENTATION_SPACE) == list(THEIRS)
    assert [operation.name.replace("_", "").lower() for operation in Operation][:14] == [name.lower() for name in THEIRS]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("operation", Operation)
def test_an_image_is_the_same_alone_and_among_others_in_any_order_and_layout(operation, size, pictures):
    count = 9 if size < 224 else 5
    images = pictures(count, size)
    values = [VALUES[operation]] * count
    fill = (124, 116, 104) if operation == Operation.TRANSLATE_Y else None
    together = done(operation, images, values, fill)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        assert torch.equal(done(operation, images, values, fill), together)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(done(operation, images.contiguous(memory_format=torch.channels_last), values, fill), together)
    assert torch.equal(done(operation, images[order], values, fill), together[order])
    for place in range(count):
        assert torch.equal(done(operation, images[place : place + 1], values[:1], fill)[0], together[place])


def test_among_images_of_other_operations_and_values_nothing_changes(pictures):
    images, generator = pictures(40, 33), np.random.default_rng(0)
    operations = generator.integers(0, len(Operation), (3, 40))
    values = np.vectorize(lambda operation: VALUES[Operation(operation)])(operations)
    together = apply_layers(images, [Layers(operations, values, np.zeros(40))], fill=None)
    for place in range(40):
        alone = images[place : place + 1]
        for layer in range(3):
            alone = done(Operation(operations[layer, place]), alone, [values[layer, place]])
        assert torch.equal(together[place], alone[0])


def test_the_engines_memory_is_not_written_to(pictures):
    for layout in (torch.contiguous_format, torch.channels_last):
        images = pictures(len(Operation), 24).contiguous(memory_format=layout)
        before = images.clone()
        layers = Layers(np.arange(len(Operation))[None], np.array([list(map(VALUES.get, Operation))]), np.zeros(len(Operation)))
        found = apply_layers(images, [layers], fill=None)
        assert torch.equal(images, before)
        assert torch.equal(found[0], before[0])
        found.zero_()
        assert torch.equal(images, before)


def test_a_filled_colour_is_torchvisions(pictures):
    images, fill = pictures(4, 40), (124, 116, 104)
    arguments = {"interpolation": InterpolationMode.BILINEAR, "fill": list(fill)}
    rotated = [functional.rotate(image, 17.3, **arguments) for image in images]
    assert torch.equal(done(Operation.ROTATE, images, [17.3] * 4, fill), torch.stack(rotated))
    moved = [functional.affine(image, 0.0, [6.4, 0.0], 1.0, [0.0, 0.0], **arguments) for image in images]
    assert torch.equal(done(Operation.TRANSLATE_X, images, [6.4] * 4, fill), torch.stack(moved))


def test_solarize_posterize_and_brightness_at_their_ends(pictures):
    images = pictures(4, 16)
    assert torch.equal(done(Operation.SOLARIZE, images, [256.0] * 4), images)
    assert torch.equal(done(Operation.SOLARIZE, images, [0.0] * 4), 255 - images)
    assert torch.equal(done(Operation.POSTERIZE, images, [8.0] * 4), images)
    assert done(Operation.POSTERIZE, images, [0.0] * 4).max() == 0
    assert done(Operation.BRIGHTNESS, images, [0.0] * 4).max() == 0
    assert done(Operation.TRANSLATE_X, images, [16.0, -16.0, 40.0, -40.0]).max() == 0


def test_contrast_of_a_large_bright_image_takes_the_exact_mean():
    """Its sum of greys is above 2**24, where a float32 sum loses the one darker pixel."""
    image = torch.full((1, 3, 288, 288), 255, dtype=torch.uint8)
    image[..., 0, 0] = 254
    assert sorted(functional.rgb_to_grayscale(image).unique().tolist()) == [253, 254]
    assert done(Operation.CONTRAST, image, [0.0]).unique().tolist() == [253]
