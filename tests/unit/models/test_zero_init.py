"""Residual branches begin at zero as torchvision and timm themselves would let them."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from tests.unit.models.made import made, unequal


def last_norms(model: nn.Module, name: str) -> list[torch.Tensor]:
    return [parameter for key, parameter in model.named_parameters() if key.endswith(f"{name}.weight")]


@pytest.mark.parametrize(("arch", "last"), [("resnet18", "bn2"), ("resnet50", "bn3")])
def test_a_torchvision_resnet_equals_torchvisions_own(arch: str, last: str) -> None:
    for zero in (True, False):
        torch.manual_seed(3)
        reference = torchvision.models.get_model(arch, num_classes=5, zero_init_residual=zero)
        assert unequal(made(arch, seed=3, zero_init_residual=zero).state_dict(), reference.state_dict()) == []
    assert all(norm.any() for norm in last_norms(made(arch, zero_init_residual=False), last))
    assert not any(norm.any() for norm in last_norms(made(arch, zero_init_residual=True), last))


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "regnety_002"])
def test_a_timm_model_equals_timms_own(arch: str) -> None:
    for zero in (True, False):
        torch.manual_seed(3)
        reference = timm.create_model(arch, num_classes=5, zero_init_last=zero)
        assert unequal(made(f"timm/{arch}", seed=3, zero_init_residual=zero).state_dict(), reference.state_dict()) == []
    true, false = (made(f"timm/{arch}", zero_init_residual=zero).state_dict() for zero in (True, False))
    assert unequal(true, false)


def test_null_is_what_the_model_does_by_itself() -> None:
    """timm's ResNets begin at zero, torchvision's do not."""
    for name, same in (("timm/resnet18", True), ("resnet18", False), ("small_resnet", False)):
        assert unequal(made(name).state_dict(), made(name, zero_init_residual=same).state_dict()) == []


def test_a_small_resnets_blocks_begin_as_their_shortcuts() -> None:
    model = made("small_resnet", zero_init_residual=True).eval()
    features = torch.rand(2, 16, 8, 8)
    assert torch.equal(model.get_submodule("blocks.0")(features), features)
    assert len([norm for norm in last_norms(model, "bn2") if not norm.any()]) == 6
