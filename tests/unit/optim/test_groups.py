"""What decays and what does not, by name, for the models of the recipes; where other projects' rules agree, and where not."""

from collections.abc import Iterable

import pytest
import timm
import timm.layers
import timm.optim
import torch
import torchvision
from torch import nn

from src.models.small_resnet import SmallResNet
from src.optim.groups import parameter_groups

Grouped = dict[str, tuple[float, float]]  # parameter name -> (weight decay, lr_scale)


def names_of(model: nn.Module, groups: Iterable[dict[str, object]]) -> Grouped:
    names = {parameter: name for name, parameter in model.named_parameters()}
    found: Grouped = {}
    for group in groups:
        for parameter in group["params"]:  # type: ignore[attr-defined]
            assert names[parameter] not in found, "listed twice"
            found[names[parameter]] = group["weight_decay"], group.get("lr_scale", 1.0)  # type: ignore[assignment]
    return found


def grouped(model: nn.Module, *, norms_and_biases: bool = False, biases: bool = False, layer_decay: float = 1.0) -> Grouped:
    return names_of(
        model,
        parameter_groups(
            model, weight_decay=0.1, decay_norms_and_biases=norms_and_biases, decay_biases=biases, layer_decay=layer_decay
        ),
    )


def decaying(model: nn.Module, **how: bool) -> set[str]:
    """Return the names that decay, having seen that every parameter is in a group and learns at the full rate."""
    found = grouped(model, **how)
    assert sorted(found) == sorted(name for name, _ in model.named_parameters())
    assert {scale for _, scale in found.values()} == {1.0}
    return {name for name, (decay, _) in found.items() if decay > 0}


def by_type(model: nn.Module, *kinds: type[nn.Module]) -> set[str]:
    """Enumerate the other way round: the weights of what multiplies, instead of all but norms and biases."""
    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, kinds)}


def resnet50s_decaying() -> set[str]:
    blocks = [f"layer{stage}.{block}" for stage, blocks in enumerate((3, 4, 6, 3), start=1) for block in range(blocks)]
    convs = {f"{block}.conv{number}.weight" for block in blocks for number in (1, 2, 3)}
    return {"conv1.weight", "fc.weight", *convs, *(f"layer{stage}.0.downsample.0.weight" for stage in (1, 2, 3, 4))}


@pytest.fixture(scope="module")
def resnet50() -> nn.Module:
    with torch.device("meta"):
        return torchvision.models.resnet50()


@pytest.fixture(scope="module")
def vit_b_16() -> nn.Module:
    with torch.device("meta"):
        return torchvision.models.vit_b_16()


def test_of_resnet50s_161_parameters_54_decay(resnet50: nn.Module) -> None:
    assert len(list(resnet50.parameters())) == 161
    assert len(resnet50s_decaying()) == 54
    assert decaying(resnet50) == resnet50s_decaying() == by_type(resnet50, nn.Conv2d, nn.Linear)


def test_timms_resnet50_is_the_same_to_us() -> None:
    with torch.device("meta"):
        model = timm.create_model("resnet50")
    assert decaying(model) == resnet50s_decaying()


def test_the_small_resnet() -> None:
    model = SmallResNet(depth=14, width=4, num_classes=3)
    assert decaying(model) == by_type(model, nn.Conv2d, nn.Linear)
    assert "blocks.2.shortcut.0.weight" in decaying(model)
    assert "blocks.2.shortcut.1.weight" not in decaying(model)


def test_of_vit_b_16_matrices_and_embeddings_decay(vit_b_16: nn.Module) -> None:
    linear = by_type(vit_b_16, nn.Conv2d, nn.Linear)  # holds out_proj of attention, which is a Linear too
    packed = {f"{name}.in_proj_weight" for name, module in vit_b_16.named_modules() if isinstance(module, nn.MultiheadAttention)}
    assert decaying(vit_b_16) == linear | packed | {"class_token", "encoder.pos_embedding"}


def test_bn_in_the_name_is_another_rule(resnet50: nn.Module) -> None:
    """FFCV's and NVIDIA's training scripts go by the name: they decay four norms, and the head's bias."""
    by_name = {name for name, _ in resnet50.named_parameters() if "bn" not in name}
    norms = {f"layer{stage}.0.downsample.1.{kind}" for stage in (1, 2, 3, 4) for kind in ("weight", "bias")}
    assert by_name - decaying(resnet50) == norms | {"fc.bias"}
    assert decaying(resnet50) <= by_name


def torchvision_decaying(model: nn.Module, *, biases: bool) -> set[str]:
    """The rule of torchvision's references with norm_weight_decay=0, and bias_weight_decay=0 where biases do not decay."""
    norms = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)
    return {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if not isinstance(module, norms) and (biases or name != "bias")
    }


def test_torchvisions_references_agree(resnet50: nn.Module, vit_b_16: nn.Module) -> None:
    for biases in (False, True):
        assert decaying(resnet50, biases=biases) == torchvision_decaying(resnet50, biases=biases)
    assert decaying(resnet50, biases=True) - decaying(resnet50) == {"fc.bias"}
    assert decaying(vit_b_16, biases=True) == torchvision_decaying(vit_b_16, biases=True)
    spelt_otherwise = {f"encoder.layers.encoder_layer_{layer}.self_attention.in_proj_bias" for layer in range(12)}
    assert torchvision_decaying(vit_b_16, biases=False) - decaying(vit_b_16) == spelt_otherwise


def test_everything_decays_where_that_is_asked_for(resnet50: nn.Module) -> None:
    everything = {name for name, _ in resnet50.named_parameters()}
    assert decaying(resnet50, norms_and_biases=True) == everything
    assert decaying(resnet50, norms_and_biases=True, biases=True) == everything


@pytest.mark.parametrize("name", ["resnet50", "vit_tiny_patch16_224", "efficientnet_b0", "swin_tiny_patch4_window7_224"])
def test_timms_groups_with_layer_decay_are_ours(name: str) -> None:
    model = timm.create_model(name)
    theirs = timm.optim.param_groups_layer_decay(model, weight_decay=0.1, layer_decay=0.75)
    assert grouped(model, layer_decay=0.75) == names_of(model, theirs)


def test_timms_dimension_rule_exempts_more_than_norms_and_biases() -> None:
    model = timm.create_model("convnext_tiny", num_classes=3)
    ours = grouped(model, layer_decay=0.75)
    theirs = names_of(model, timm.optim.param_groups_layer_decay(model, weight_decay=0.1, layer_decay=0.75))
    assert {name: scale for name, (_, scale) in ours.items()} == {name: scale for name, (_, scale) in theirs.items()}
    scales = {name for name, _ in model.named_parameters() if name.endswith(".gamma")}  # LayerScale: a vector, and no norm
    assert {name for name in ours if ours[name] != theirs[name]} == scales


def test_timms_list_of_exempt_embeddings_is_not_asked() -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    exempt = model.no_weight_decay()
    theirs = names_of(model, timm.optim.param_groups_weight_decay(model, weight_decay=0.1, no_weight_decay_list=exempt))
    assert {name for name, (decay, _) in theirs.items() if decay > 0} | {"pos_embed", "cls_token"} == decaying(model)


@pytest.mark.parametrize(
    "norm",
    [
        timm.layers.RmsNorm(2),
        timm.layers.RmsNorm2d(2),
        timm.layers.SimpleNorm(2),
        timm.layers.BatchNormAct2d(2),
        timm.layers.LayerNorm2d(2),
        timm.layers.EvoNorm2dS0(2, groups=1),
        timm.layers.FilterResponseNormTlu2d(2),
        timm.layers.grn.GlobalResponseNorm(2),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_timms_norms_are_norms_whatever_they_derive_from(norm: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(2, 2), norm)
    assert len(list(model.parameters())) > 2
    assert decaying(model) == {"0.weight"}
