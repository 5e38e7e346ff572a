"""The head's bias may begin where BCE has nothing to unlearn."""

import math

import pytest
import torch
from torch.nn import functional

from src.config import ConfigError
from src.models.head import heads
from tests.unit.models.made import made, unequal

HEADS = {
    "resnet18": ["fc"],
    "small_resnet": ["fc"],
    "timm/resnet18": ["fc"],
    "timm/deit_tiny_distilled_patch16_224": ["head", "head_dist"],
    "mobilenet_v3_small": ["classifier.3"],
    "squeezenet1_1": ["classifier.1"],
}


@pytest.mark.parametrize(("name", "names"), HEADS.items())
def test_only_the_heads_bias_changes(name: str, names: list[str]) -> None:
    plain, prior = made(name, num_classes=7), made(name, num_classes=7, prior_bias=True)
    assert list(heads(prior)) == names
    assert unequal(plain.state_dict(), prior.state_dict()) == [f"{head}.bias" for head in names]
    for head in names:
        bias = prior.get_submodule(head).bias
        assert torch.equal(bias, torch.full_like(bias, -math.log(7)))


def test_summed_bce_begins_at_about_one_class_in_all() -> None:
    losses = []
    for prior in (False, True):
        model = made("resnet18", num_classes=1000, prior_bias=prior).eval()
        logits = model(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
        targets = functional.one_hot(torch.arange(4), 1000).float()
        losses.append(float(functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum").detach()) / 4)
    assert losses[0] > 500
    assert losses[1] < 20


def test_a_model_without_a_bias_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.prior_bias"):
        made("timm/cspresnet50", num_classes=0, prior_bias=True)
