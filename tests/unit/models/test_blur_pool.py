"""The blur goes where ffcv-imagenet's and Composer's rules put it, and computes what they compute."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from src.models.blur_pool import BlurredInput, BlurredMaxima, blur
from tests.unit.models.made import made, train, unequal


def slow_blur(features: Tensor, stride: int) -> Tensor:
    """Weigh each pixel's 3x3 neighbourhood by [1, 2, 1] x [1, 2, 1] / 16, with zeros outside, pixel by pixel."""
    number, channels, height, width = features.shape
    out = torch.zeros(number, channels, -(-height // stride), -(-width // stride), dtype=features.dtype)
    for y in range(0, height, stride):
        for x in range(0, width, stride):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if 0 <= y + dy < height and 0 <= x + dx < width:
                        weight = (2 - abs(dy)) * (2 - abs(dx)) / 16
                        out[:, :, y // stride, x // stride] += weight * features[:, :, y + dy, x + dx]
    return out


def blurred(model: nn.Module, kind: type) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, kind)]


@pytest.mark.parametrize("name", ["resnet50", "timm/resnet50"])
def test_resnet50_is_blurred_before_six_convolutions_and_at_will_in_its_max_pool(name: str) -> None:
    """Each of three stages strides in a 3x3 convolution and in a 1x1 shortcut; the stem's has three channels only."""
    convs, both = made(name, blur_pool="convs"), made(name, blur_pool="convs_and_max_pool")
    expected = [f"layer{stage}.0.{layer}" for stage in (2, 3, 4) for layer in ("conv2", "downsample.0")]
    assert blurred(convs, BlurredInput) == blurred(both, BlurredInput) == expected
    assert (blurred(convs, BlurredMaxima), blurred(both, BlurredMaxima)) == ([], ["maxpool"])


@pytest.mark.parametrize(
    ("kernel", "padding", "groups", "stride"), [(3, 1, 1, 2), (1, 0, 1, 2), (3, 1, 4, 2), (3, 0, 1, 3), (2, 0, 1, 2)]
)
def test_a_strided_convolution_sees_its_input_blurred(kernel: int, padding: int, groups: int, stride: int) -> None:
    convolution = nn.Conv2d(16, 8, kernel, stride, padding, groups=groups).double()
    features = torch.randn(2, 16, 9, 8, dtype=torch.float64)
    expected = convolution(slow_blur(features, 1))
    assert blur(convolution, max_pools=False) == 1
    torch.testing.assert_close(convolution.double()(features), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (3, 1, 1), (3, 3, 0)])
def test_a_max_pool_takes_its_maxima_everywhere_then_blurs_then_strides(kernel: int, stride: int, padding: int) -> None:
    pool = nn.MaxPool2d(kernel, stride, padding)
    features = torch.randn(2, 3, 10, 9, dtype=torch.float64)
    expected = slow_blur(functional.max_pool2d(features, kernel, 1, padding), stride)
    assert blur(pool, max_pools=True) == 1
    torch.testing.assert_close(pool.double()(features), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 16, 3, 1, 1),
        nn.Conv2d(15, 16, 3, 2, 1),
        nn.Conv1d(16, 16, 3, 2),
        nn.AvgPool2d(2),
        nn.MaxPool2d(2, return_indices=True),
    ],
)
def test_other_layers_stay(layer: nn.Module) -> None:
    assert blur(nn.Sequential(layer), max_pools=True) == 0


@pytest.mark.parametrize("rule", ["convs", "convs_and_max_pool"])
@pytest.mark.parametrize("name", ["resnet18", "timm/resnet18", "small_resnet"])
def test_weights_fit_with_and_without_and_are_drawn_the_same(name: str, rule: str) -> None:
    plain, with_blur = made(name), made(name, blur_pool=rule)
    assert unequal(plain.state_dict(), with_blur.state_dict()) == []
    plain.load_state_dict(made(name, blur_pool=rule, seed=1).state_dict())
    with_blur.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert not torch.equal(plain.eval()(images), with_blur.eval()(images))


def test_a_copy_a_cast_and_channels_last_keep_the_blur() -> None:
    model = made("resnet18", blur_pool="convs_and_max_pool")
    images = torch.randn(2, 3, 64, 64)
    twin = copy.deepcopy(model).to(memory_format=torch.channels_last)
    third = copy.deepcopy(model)
    assert unequal(train(model, size=32, steps=1), train(third, size=32, steps=1)) == []
    layouts: list[bool] = []
    for part in twin.modules():
        if isinstance(part, BlurredInput | BlurredMaxima):
            part.register_forward_hook(
                lambda module, given, out: layouts.append(out.is_contiguous(memory_format=torch.channels_last))
            )
    logits = twin.eval()(images.contiguous(memory_format=torch.channels_last))
    assert layouts == [True] * 7
    double = made("resnet18", blur_pool="convs_and_max_pool").double().eval()(images.double())
    torch.testing.assert_close(logits.double(), double, rtol=1e-3, atol=1e-3)


def test_the_blur_can_be_compiled() -> None:
    layers: Any = nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.Conv2d(16, 16, 3, 2, 1))
    blur(layers, max_pools=True)
    images = torch.randn(1, 16, 12, 12)
    assert torch.equal(torch.compile(layers, backend="aot_eager", fullgraph=True)(images), layers(images))
