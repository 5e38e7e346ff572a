"""Blocks that are computed twice: the same training bit for bit, with less kept."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.models.checkpointing import Checkpointed, checkpoint_blocks
from tests.unit.models.made import made, train, unequal


def num_blocks(model: nn.Module) -> int:
    return sum(isinstance(module, Checkpointed) for module in model.modules())


MODELS = [
    ("small_resnet", 6, 16),
    ("resnet18", 8, 32),
    ("resnet50", 16, 32),
    ("convnext_tiny", 22, 32),
    ("densenet121", 61, 32),
    ("efficientnet_b0", 18, 32),
    ("mobilenet_v3_small", 13, 32),
    ("regnet_y_400mf", 16, 32),
    ("googlenet", 45, 32),
    ("swin_t", 16, 32),
    ("timm/resnet18", 8, 32),
    ("timm/regnetx_002", 11, 32),
    ("timm/convnext_atto", 15, 32),
    ("timm/efficientnet_b0", 16, 32),
    ("timm/vit_tiny_patch16_224", 12, 224),
]


@pytest.mark.parametrize(("name", "blocks", "size"), MODELS)
def test_training_is_the_same_bit_for_bit(name: str, blocks: int, size: int) -> None:
    """Weights, running statistics and batch counts, with dropout where the model has it."""
    twice = made(name, gradient_checkpointing=True)
    assert num_blocks(twice) == blocks
    assert unequal(train(made(name), size=size, steps=2), train(twice, size=size, steps=2)) == []


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", ["small_resnet", "resnet50", "timm/resnet18"])
def test_five_steps_with_drop_path_blur_and_autocast_are_the_same_bit_for_bit(name: str, autocast: bool) -> None:
    changes: dict[str, Any] = {"drop_path": 0.5, "blur_pool": "convs_and_max_pool" if name != "small_resnet" else "convs"}
    once, twice = made(name, **changes), made(name, gradient_checkpointing=True, **changes)
    last = train(twice, size=32, steps=5, autocast=autocast)
    assert unequal(train(once, size=32, steps=5, autocast=autocast), last) == []
    assert {int(count) for key, count in last.items() if key.endswith("num_batches_tracked")} == {5}


def test_plain_checkpointing_would_move_the_statistics_twice() -> None:
    """So the promise above is not empty."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    images = torch.randn(2, 3, 4, 4, requires_grad=True)
    torch.utils.checkpoint.checkpoint(plain, images, use_reentrant=False).sum().backward()
    assert plain[1].num_batches_tracked == 2


def test_norms_without_momentum_or_statistics_or_in_evaluation_are_left_as_they_are() -> None:
    def stack() -> nn.Sequential:
        torch.manual_seed(0)
        norms = nn.BatchNorm2d(3, momentum=None), nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm2d(3).eval()
        blocks = [nn.ModuleDict({"conv": nn.Conv2d(3, 3, 1), "norm": norm}) for norm in norms]
        for block in blocks:
            block.__class__ = type("Block", (nn.ModuleDict,), {"forward": lambda self, x: self["norm"](self["conv"](x)) + x})
        return nn.Sequential(*blocks)

    once, twice = stack(), stack()
    assert checkpoint_blocks(twice) == 3
    before = copy.deepcopy(twice[2]["norm"].state_dict())
    for _ in range(3):
        images = torch.randn(4, 3, 4, 4)
        for model in (once, twice):
            model(images).square().sum().backward()
    assert unequal(once.state_dict(), twice.state_dict()) == []
    assert unequal(before, twice[2]["norm"].state_dict()) == []
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(once.parameters(), twice.parameters(), strict=True))  # type: ignore[arg-type]


def kept_bytes(model: nn.Module, images: Tensor) -> int:
    """Add up what autograd holds between forward and backward, each storage once, weights apart."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model.train()(images).sum()
    assert loss.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize(
    ("name", "most"), [("resnet50", 0.4), ("convnext_tiny", 0.3), ("small_resnet", 0.5), ("timm/resnet18", 0.7)]
)
def test_less_is_kept(name: str, most: float) -> None:
    images = torch.randn(2, 3, 64, 64)
    fraction = kept_bytes(made(name, gradient_checkpointing=True), images) / kept_bytes(made(name), images)
    print(f"{name}: {fraction:.3f}")
    assert fraction < most


def test_nothing_is_wrapped_where_no_gradient_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = made("resnet18", gradient_checkpointing=True), torch.randn(2, 3, 32, 32)
    with_gradient = model.eval()(images)
    monkeypatch.setattr("src.models.checkpointing.checkpoint", None)
    with torch.no_grad():
        assert torch.equal(model(images), with_gradient)


def test_a_copy_is_checkpointed_too_and_names_stay() -> None:
    model = made("resnet18", gradient_checkpointing=True)
    twin = copy.deepcopy(model)
    assert list(model.state_dict()) == list(made("resnet18").state_dict())
    assert num_blocks(twin) == 8
    assert unequal(train(model, size=32, steps=1), train(twin, size=32, steps=1)) == []


def test_a_compiled_model_moves_its_statistics_once() -> None:
    once, twice = made("small_resnet", depth=8), made("small_resnet", depth=8, gradient_checkpointing=True)
    compiled: Any = torch.compile(twice, backend="aot_eager", fullgraph=True)
    images = torch.randn(4, 3, 16, 16)
    for model in (once, compiled):
        model(images).square().sum().backward()
    assert unequal(once.state_dict(), twice.state_dict()) == []
    for left, right in zip(once.parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad)
