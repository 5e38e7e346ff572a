"""Every change on a dozen models: it works and keeps the names, or it is refused with its key. Nothing else."""

from typing import Any

import pytest
import timm
import torch

from src.config import ConfigError
from tests.unit.models.made import made

CHANGES: dict[str, dict[str, Any]] = {
    "blur": {"blur_pool": "convs"},
    "blur_max": {"blur_pool": "convs_and_max_pool"},
    "zero": {"zero_init_residual": True},
    "drop": {"drop_path": 0.1},
    "twice": {"gradient_checkpointing": True},
}

REFUSED = {
    "resnet50": "",
    "small_resnet": "",
    "alexnet": "blur zero drop twice",
    "vgg11": "blur zero drop twice",
    "densenet121": "blur zero drop",
    "convnext_tiny": "zero",
    "efficientnet_b0": "zero",
    "mobilenet_v2": "zero drop",
    "regnet_y_400mf": "zero drop",
    "swin_t": "blur blur_max zero",
    "vit_b_32": "blur blur_max zero drop",
    "timm/resnet50d": "",
    "timm/resnetv2_50": "",
    "timm/regnety_002": "",
    "timm/convnext_atto": "zero",
    "timm/efficientnet_b0": "zero",
    "timm/tf_efficientnet_b0": "zero",
    "timm/vit_tiny_patch16_224": "blur blur_max zero",
    "timm/vgg11": "blur zero drop twice",
    "timm/convmixer_768_32": "blur blur_max zero drop",
}


@pytest.mark.parametrize("change", list(CHANGES))
@pytest.mark.parametrize("name", list(REFUSED))
def test_a_change_works_or_is_refused(name: str, change: str) -> None:
    """On the meta device, as the preflight builds it."""
    ((key, value),) = CHANGES[change].items()
    with torch.device("meta"):
        if change in REFUSED[name].split():
            with pytest.raises(ConfigError, match=rf"1 problem in the model:\n  model\.{key} = .*Set (null|none|false)") as caught:
                made(name, **CHANGES[change])
            assert name.rpartition("/")[2] in str(caught.value)
            return
        changed, plain = made(name, **{key: value}), made(name)
    assert list(changed.state_dict()) == list(plain.state_dict())
    assert all(tensor.is_meta for tensor in changed.state_dict().values())


def test_every_refusal_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught, torch.device("meta"):
        made("vgg11", blur_pool="convs", zero_init_residual=False, drop_path=0.2, gradient_checkpointing=True)
    assert [problem.path for problem in caught.value.problems] == [
        f"model.{key}" for key in ("zero_init_residual", "drop_path", "blur_pool", "gradient_checkpointing")
    ]
    with pytest.raises(ConfigError) as caught, torch.device("meta"):
        made("timm/vgg11", zero_init_residual=False, drop_path=0.2)
    assert [problem.path for problem in caught.value.problems] == ["model.drop_path", "model.zero_init_residual"]


@pytest.mark.parametrize("name", ["resnet50", "timm/resnet50"])
def test_all_changes_together_keep_resnet50s_parameters(name: str) -> None:
    with torch.device("meta"):
        together = {key: value for change in CHANGES.values() for key, value in change.items()}
        model = made(name, num_classes=1000, **together)
    assert sum(parameter.numel() for parameter in model.parameters()) == 25_557_032


@pytest.mark.parametrize("name", ["resnet18", "small_resnet", "timm/resnet18", "timm/convnext_atto"])
def test_channels_last_goes_through_all_changes(name: str) -> None:
    """Every block of features stays in the layout that the images came in."""
    changes = {"drop_path": 0.5, "gradient_checkpointing": True, "blur_pool": "convs"}
    model = made(name, **changes).to(memory_format=torch.channels_last)
    strided: list[str] = []

    def look(module: torch.nn.Module, given: Any, out: torch.Tensor) -> None:
        if out.ndim == 4 and min(out.shape[1:]) > 1 and not out.is_contiguous(memory_format=torch.channels_last):
            strided.append(type(module).__name__)

    for module in model.modules():
        module.register_forward_hook(look)
    model(torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)).sum().backward()
    assert strided == []
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("arch", "near"), [("resnet50x", "resnet50"), ("ResNet50", "resnet50"), ("convnext_tinny", "convnext_tiny")]
)
def test_a_name_that_timm_does_not_know_is_refused_with_the_nearest(arch: str, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.arch = '{arch}': timm .* has no model of this name\. Did you mean {near}"):
        made(f"timm/{arch}")


def test_timm_builds_the_number_of_classes_from_the_seed() -> None:
    one, other = made("timm/resnet18", num_classes=7), made("timm/resnet18", num_classes=7)
    assert one(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_timm_model_that_ignores_what_it_is_asked_is_refused() -> None:
    """None of timm 1.0.31 does; another version's might, and then a rate would be said that is not used."""

    def takes_anything(pretrained: bool = False, num_classes: int = 1000, **ignored: Any) -> torch.nn.Module:
        return torch.nn.Linear(3, num_classes)

    timm.models.register_model(takes_anything)
    with pytest.raises(ConfigError) as caught:
        made("timm/takes_anything", drop_path=0.1, zero_init_residual=True)
    assert [problem.path for problem in caught.value.problems] == ["model.drop_path", "model.zero_init_residual"]
    assert made("timm/takes_anything", drop_path=0.0)(torch.ones(1, 3)).shape == (1, 5)
