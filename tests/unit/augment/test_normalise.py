"""Normalisation: the formula to float32's rounding, 16-bit results rounded once, the layout kept, the input untouched."""

import pytest
import torch

from src.augment.normalise import Normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
EPSILON = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}  # half a last place


def every_value() -> torch.Tensor:
    """Return uint8 (2, 3, 16, 16) that holds all 256 values in every channel."""
    values = torch.arange(256, dtype=torch.uint8).reshape(16, 16)
    return torch.stack([values.expand(3, 16, 16), values.flip(0).expand(3, 16, 16)])


def exact(images: torch.Tensor, mean=MEAN, std=STD) -> torch.Tensor:
    pixels = images.double() / 255
    return torch.stack([(pixels[:, channel] - mean[channel]) / std[channel] for channel in range(3)], dim=1)


def normalise(dtype=torch.float32, memory_format=torch.channels_last, mean=MEAN, std=STD) -> Normalise:
    return Normalise(mean, std, device=torch.device("cpu"), dtype=dtype, memory_format=memory_format)


@pytest.mark.parametrize(
    ("mean", "std"), [(MEAN, STD), ((0, 0, 0), (1, 1, 1)), ((0.286,) * 3, (0.353,) * 3), ((0.0, 0.5, 1.0), (1.0, 0.5, 0.1))]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_formula_to_rounding(dtype, mean, std):
    images = every_value()
    found = normalise(dtype, mean=mean, std=std)(images)
    assert found.dtype == dtype
    # Three roundings of numbers no larger than a pixel's, divided by std.
    bound = 4 * EPSILON[dtype] * (1 + max(mean)) / min(std)
    assert (found.double() - exact(images, mean, std)).abs().max() <= bound


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_16_bit_result_is_rounded_once(dtype):
    images = every_value()
    found = normalise(dtype)(images)
    assert found.dtype == dtype
    assert torch.equal(found, normalise(torch.float32)(images).to(dtype))
    expected = exact(images)
    bound = expected.abs() * EPSILON[dtype] + 1e-5  # half a last place of the result, and float32's own error
    assert ((found.double() - expected).abs() <= bound).all()


@pytest.mark.parametrize("stored", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("wanted", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_result_is_laid_out_as_asked(dtype, wanted, stored):
    images = every_value().contiguous(memory_format=stored)
    found = normalise(dtype, wanted)(images)
    assert found.is_contiguous(memory_format=wanted)
    assert torch.equal(found, normalise(dtype, stored)(every_value()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_input_is_not_modified(dtype):
    images = every_value()
    transform = normalise(dtype)
    first = transform(images)
    assert torch.equal(images, every_value())
    assert torch.equal(transform(images), first)
    assert first.untyped_storage().data_ptr() != images.untyped_storage().data_ptr()


def test_channels_are_not_mixed_up():
    images = torch.zeros((1, 3, 2, 2), dtype=torch.uint8)
    images[0, 1] = 255
    found = normalise(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))(images)[0, :, 0, 0]
    assert found.tolist() == pytest.approx([-0.2, 3.2, -2.4], rel=1e-6)
