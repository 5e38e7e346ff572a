"""Stochastic depth: where it is, its rates, its scale, and that timm's and torchvision's own do the same."""

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.ops import StochasticDepth

from tests.unit.models.made import made, unequal


def rates(model: nn.Module) -> list[float]:
    return [module.p for module in model.modules() if isinstance(module, StochasticDepth)]


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_a_torchvision_resnet_trains_as_timms_of_the_same_weights(arch: str) -> None:
    """Same names, same arithmetic, same masks from the same seed: same place, same rates, same scale."""
    ours, timms = made(arch, drop_path=0.5), timm.create_model(arch, num_classes=5, drop_path_rate=0.5)
    timms.load_state_dict(ours.state_dict())
    images = torch.randn(6, 3, 32, 32)
    for model in (ours, timms):
        model.train()
    torch.manual_seed(5)
    logits = ours(images)
    torch.manual_seed(5)
    assert torch.equal(logits, timms(images))
    assert torch.equal(ours.eval()(images), timms.eval()(images))
    assert not torch.equal(logits, ours.train()(images))


@pytest.mark.parametrize(("name", "blocks"), [("resnet50", 16), ("wide_resnet50_2", 16), ("small_resnet", 6)])
def test_the_rate_falls_linearly_from_the_last_block_to_the_first(name: str, blocks: int) -> None:
    assert rates(made(name, drop_path=0.3)) == pytest.approx([0.3 * index / (blocks - 1) for index in range(blocks)])


@pytest.mark.parametrize("arch", ["convnext_tiny", "efficientnet_b0", "swin_t", "maxvit_t"])
def test_a_model_with_torchvisions_own_keeps_its_rule(arch: str) -> None:
    """What torchvision builds at its default rate is what we build when asked for that rate."""
    with torch.device("meta"):
        own = rates(torchvision.models.get_model(arch))
        assert rates(made(arch)) == own
        default = {"convnext_tiny": 0.1}.get(arch, 0.2)
        assert rates(made(arch, drop_path=default)) == pytest.approx(own, rel=1e-14)
        assert rates(made(arch, drop_path=3 * default)) == pytest.approx([3 * rate for rate in own])
        assert not any(rates(made(arch, drop_path=0.0)))


def test_efficientnet_takes_the_rate_as_torchvision_does() -> None:
    with torch.device("meta"):
        own = rates(torchvision.models.efficientnet_b1(stochastic_depth_prob=0.35))
        assert rates(made("efficientnet_b1", drop_path=0.35)) == pytest.approx(own)


def test_timm_gets_the_rate() -> None:
    for arch in ("resnet50", "vit_tiny_patch16_224", "convnext_atto"):
        with torch.device("meta"):
            own = timm.create_model(arch, num_classes=5, drop_path_rate=0.3)
            expected = [module.drop_prob for module in own.modules() if hasattr(module, "drop_prob")]
            got = [module.drop_prob for module in made(f"timm/{arch}", drop_path=0.3).modules() if hasattr(module, "drop_prob")]
        assert got == expected
        assert max(got) == pytest.approx(0.3)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "small_resnet"])
def test_names_and_first_weights_stay_and_evaluation_drops_nothing(name: str) -> None:
    plain, dropped = made(name), made(name, drop_path=0.9)
    assert unequal(plain.state_dict(), dropped.state_dict()) == []
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(plain.eval()(images), dropped.eval()(images))
    assert torch.equal(plain.train()(images), made(name, drop_path=0.0).train()(images))


@pytest.mark.parametrize("name", ["resnet50", "small_resnet"])
def test_each_sample_skips_for_itself_and_a_kept_branch_is_divided_by_its_chance(name: str) -> None:
    """With a norm that passes features through, a row is either its shortcut or shortcut + branch / (1 - rate)."""
    block = [module for module in made(name, drop_path=0.75).modules() if hasattr(module, "drop_path")][-1]
    channels = block.get_submodule("conv1").in_channels
    features = torch.rand(64, int(str(channels)), 4, 4)
    shortcut, kept = copy.deepcopy(block), copy.deepcopy(block)
    block.get_submodule("drop_path").p, shortcut.get_submodule("drop_path").p = 0.75, 1.0
    kept.get_submodule("drop_path").p = 0.0
    torch.manual_seed(0)
    out, low = block(features), shortcut(features)
    last = "bn3" if name == "resnet50" else "bn2"
    for parameter in ("weight", "bias"):
        kept.get_submodule(last).get_parameter(parameter).data *= 4
    high = kept(features)
    dropped = (out == low).flatten(1).all(1)
    assert 0.6 < dropped.float().mean() < 0.9
    torch.testing.assert_close(out[~dropped], high[~dropped])
