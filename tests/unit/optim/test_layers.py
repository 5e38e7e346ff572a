"""Layer-wise decay: which layer a parameter belongs to, and the rate that follows from it."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from src.config import ConfigError
from src.models.small_resnet import SmallResNet
from src.optim.groups import parameter_groups
from src.optim.layers import layer_of_parameters, layers_by_structure


def layers(model: nn.Module) -> list[set[str]]:
    """Return the names of each layer's parameters, from the images to the head."""
    found = layers_by_structure(model)
    names: list[set[str]] = [set() for _ in range(max(found.values()) + 1)]
    for name, parameter in model.named_parameters():
        names[found[parameter]].add(name)
    assert all(names), "no number is left out"
    return names


def under(model: nn.Module, *prefixes: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


@pytest.mark.parametrize(("arch", "blocks"), [("resnet18", (2, 2, 2, 2)), ("resnet50", (3, 4, 6, 3))])
def test_a_torchvision_resnet_is_a_stem_its_residual_blocks_and_a_head(arch: str, blocks: tuple[int, ...]) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(arch)
    residual = [f"layer{stage}.{block}." for stage, count in enumerate(blocks, start=1) for block in range(count)]
    assert layers(model) == [under(model, "conv1.", "bn1."), *(under(model, block) for block in residual), under(model, "fc.")]


def test_a_vision_transformer_is_an_embedding_its_encoder_layers_and_a_head() -> None:
    with torch.device("meta"):
        model = torchvision.models.vit_b_16()
    encoder = [under(model, f"encoder.layers.encoder_layer_{layer}.") for layer in range(12)]
    encoder[-1] |= under(model, "encoder.ln.")
    assert layers(model) == [under(model, "class_token", "conv_proj.", "encoder.pos_embedding"), *encoder, under(model, "heads.")]


def test_the_small_resnet_has_a_layer_for_every_block() -> None:
    model = SmallResNet(depth=14, width=4, num_classes=3)
    assert layers(model) == [under(model, "stem."), *(under(model, f"blocks.{block}.") for block in range(6)), under(model, "fc.")]


@pytest.mark.parametrize(
    ("arch", "count"),
    [
        ("alexnet", 8),  # five convolutions, three matrices
        ("mobilenet_v2", 20),  # stem, 17 blocks, a convolution, the head
        ("densenet121", 63),  # stem, 58 dense layers, three transitions, the head
        ("efficientnet_v2_s", 43),  # stem, 40 blocks, a convolution, the head
        ("convnext_tiny", 23),  # stem, 18 blocks, three reductions, the head
        ("swin_t", 17),  # stem, 12 blocks, three mergings, the head
        ("regnet_x_400mf", 24),  # stem, 22 blocks, the head
    ],
)
def test_the_structure_of_other_models(arch: str, count: int) -> None:
    model = torchvision.models.get_model(arch)
    found = layers(model)
    assert len(found) == count
    head = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    assert found[-1] == {f"{head}.weight", f"{head}.bias"}


@pytest.mark.parametrize("arch", ["resnet50", "vit_tiny_patch16_224", "mixer_s32_224"])
def test_structure_says_what_timm_says_of_its_models(arch: str) -> None:
    model = timm.create_model(arch)
    assert layers_by_structure(model) == layer_of_parameters(model)


def test_a_wrapped_model_has_the_layers_of_what_it_wraps() -> None:
    class Wrapper(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

    model = nn.Module()
    model.conv1, model.conv2, model.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 2)
    expected = [{f"inner.{name}.weight", f"inner.{name}.bias"} for name in ("conv1", "conv2", "fc")]
    assert layers(Wrapper(model)) == expected


def test_what_comes_before_any_weight_matrix_belongs_to_the_first_layer() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    assert layers(model) == [under(model, "0.", "1.", "2."), under(model, "4.")]


def test_a_shared_weight_belongs_to_the_first_layer_that_has_it() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert layers(model) == [{"0.weight", "0.bias", "1.bias"}, {"2.weight", "2.bias"}]


def test_rates_fall_by_the_factor_from_the_head_down() -> None:
    model = SmallResNet(depth=8, width=4, num_classes=3)
    groups = parameter_groups(model, weight_decay=0.1, decay_norms_and_biases=False, decay_biases=False, layer_decay=0.5)
    assert [(group["lr_scale"], group["weight_decay"]) for group in groups] == [
        (scale, decay) for scale in (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0) for decay in (0.1, 0.0)
    ]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_a_frozen_layer_still_counts_as_a_layer() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].requires_grad_(False)
    groups = parameter_groups(model, weight_decay=0.1, decay_norms_and_biases=True, decay_biases=True, layer_decay=0.5)
    assert [(group["lr_scale"], len(group["params"])) for group in groups] == [(0.25, 2), (1.0, 2)]


def test_a_single_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim\.layer_decay = 0\.5: Linear has only one layer.*Set optim\.layer_decay=1\.0"):
        parameter_groups(nn.Linear(3, 3), weight_decay=0.1, decay_norms_and_biases=False, decay_biases=False, layer_decay=0.5)
