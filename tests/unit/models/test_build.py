"""From a name to a classifier: sizes, shapes, seeds, and what a custom factory may get wrong."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.config import ConfigError
from src.config.model import CustomModel, SmallResNet, TorchvisionModel
from src.models.build import build_model
from tests.unit.models.made import AS_IT_IS

WriteModule = Callable[[str], str]


def small(depth: int, *, stem_stride: Any = 1) -> nn.Module:
    config = SmallResNet(name="small_resnet", depth=depth, width=4, stem_stride=stem_stride, **AS_IT_IS)
    return build_model(config, num_classes=7)


def custom(factory: str, **kwargs: Any) -> nn.Module:
    return build_model(CustomModel(name="custom", factory=factory, kwargs=kwargs, **AS_IT_IS), num_classes=7)


@pytest.mark.parametrize("depth", [8, 14, 20, 56])
def test_a_small_resnet_has_its_depth(depth: int) -> None:
    model = small(depth)
    on_the_path = [module for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and "shortcut" not in name]
    assert len(on_the_path) + 1 == depth
    assert model(torch.randn(2, 3, 28, 28)).shape == (2, 7)


@pytest.mark.parametrize(("stem_stride", "sides"), [(1, [32, 32, 16, 8]), (2, [16, 16, 8, 4])])
def test_widths_double_and_sides_halve_from_stage_to_stage(stem_stride: int, sides: list[int]) -> None:
    model = small(14, stem_stride=stem_stride)
    features = [model.stem(torch.randn(1, 3, 32, 32))]
    for block in model.blocks:
        features.append(block(features[-1]))
    assert [tuple(features[i].shape[1:]) for i in (0, 2, 4, 6)] == [
        (width, side, side) for width, side in zip((4, 4, 8, 16), sides, strict=True)
    ]


def test_resnet20_has_the_papers_parameters_and_its_projections() -> None:
    """He et al. 2015 give 0.27 M without projections: two of them and their norms come on top."""
    config = SmallResNet(name="small_resnet", depth=20, width=16, stem_stride=1, **AS_IT_IS)
    count = sum(parameter.numel() for parameter in build_model(config, num_classes=10).parameters())
    assert count == 269_722 + (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)


def test_the_same_seed_gives_the_same_weights() -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.cat([parameter.detach().flatten() for parameter in small(8).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_resnet50_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = build_model(TorchvisionModel(name="torchvision", arch="resnet50", **AS_IT_IS), num_classes=1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == 25_557_032


@pytest.mark.parametrize(("arch", "size"), [("googlenet", 64), ("inception_v3", 96), ("mobilenet_v3_small", 64)])
def test_a_model_returns_logits_in_training_too(arch: str, size: int) -> None:
    model = build_model(TorchvisionModel(name="torchvision", arch=arch, **AS_IT_IS), num_classes=7)
    assert model.training
    logits = model(torch.randn(2, 3, size, size))
    assert isinstance(logits, Tensor)
    assert logits.shape == (2, 7)


@pytest.mark.parametrize("arch", ["regnet_y_400mf", "googlenet", "swin_t", "vit_b_32"])
def test_a_model_is_built_on_the_meta_device_and_draws_nothing(arch: str) -> None:
    """RegNet's widths are computed with tensors, which have no numbers there."""
    before = torch.get_rng_state()
    with torch.device("meta"):
        model = build_model(TorchvisionModel(name="torchvision", arch=arch, **AS_IT_IS), num_classes=7)
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> WriteModule:
    """Write a module beside the project, whose folder is the working one. Returns its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path)])

    def write(text: str) -> str:
        name = f"own_{abs(hash(request.node.nodeid))}"
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return write


def test_a_custom_factory_gets_the_classes_and_its_arguments(write_module: WriteModule) -> None:
    module = write_module(
        "from torch import nn\ndef build(num_classes, width, names):\n"
        "    model = nn.Linear(width, num_classes)\n    model.names = names\n    return model\n"
    )
    model = custom(f"{module}:build", width=5, names=["a", None])
    assert isinstance(model, nn.Linear)
    assert (model.in_features, model.out_features, model.names) == (5, 7, ["a", None])


@pytest.mark.parametrize(
    ("text", "attribute", "kwargs", "why"),
    [
        ("", "build", {}, "has no attribute 'build'"),
        ("import not_installed_anywhere", "build", {}, "No module named 'not_installed_anywhere'"),
        ("def build(num_classes): ...", "build", {"width": 3}, "unexpected keyword argument 'width'"),
        ("def build(width): ...", "build", {"width": 3}, "unexpected keyword argument 'num_classes'"),
        ("build = 3", "build", {}, "'int' object is not callable"),
    ],
)
def test_a_factory_that_cannot_be_called_is_named_with_the_reason(
    write_module: WriteModule, text: str, attribute: str, kwargs: dict[str, Any], why: str
) -> None:
    factory = f"{write_module(text)}:{attribute}"
    with pytest.raises(ConfigError) as caught:
        custom(factory, **kwargs)
    message = str(caught.value)
    assert f"model.factory = '{factory}': cannot be called as build(num_classes=7, **model.kwargs): " in message
    assert why in message


def test_a_factory_that_needs_numbers_is_built_on_the_meta_device_too(write_module: WriteModule) -> None:
    module = write_module(
        "import torch\nfrom torch import nn\ndef build(num_classes):\n"
        "    return nn.Sequential(*(nn.Dropout(rate.item()) for rate in torch.linspace(0, 0.5, 3)), nn.Linear(2, num_classes))\n"
    )
    with torch.device("meta"):
        model = custom(f"{module}:build")
        assert all(parameter.is_meta for parameter in model.parameters())
        with pytest.raises(ConfigError, match="has no attribute 'other'"):
            custom(f"{module}:other")


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="No module named 'no_such_module'"):
        custom("no_such_module:build")


def test_a_factory_that_returns_something_else_is_refused(write_module: WriteModule) -> None:
    with pytest.raises(ConfigError, match=r"model\.factory = .*: returned list, no nn\.Module\."):
        custom(f"{write_module('def build(num_classes): return [num_classes]')}:build")
