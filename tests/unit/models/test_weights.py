"""Weights to begin from: what fits is loaded, a head of other classes stays fresh, and all else is told."""

import copy
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from src.config import ConfigError
from src.models.weights import load_weights, read_state_dict
from tests.unit.models.made import made, unequal

HEADS = [
    ("resnet18", ["fc.weight", "fc.bias"]),
    ("mobilenet_v3_small", ["classifier.3.weight", "classifier.3.bias"]),
    ("squeezenet1_1", ["classifier.1.weight", "classifier.1.bias"]),
    ("densenet121", ["classifier.weight", "classifier.bias"]),
    ("maxvit_t", ["classifier.5.weight"]),
    ("swin_t", ["head.weight", "head.bias"]),
    ("small_resnet", ["fc.weight", "fc.bias"]),
    ("timm/resnet18", ["fc.weight", "fc.bias"]),
    ("timm/convnext_atto", ["head.fc.weight", "head.fc.bias"]),
    ("timm/vit_tiny_patch16_224", ["head.weight", "head.bias"]),
    ("timm/efficientnet_b0", ["classifier.weight", "classifier.bias"]),
    ("timm/deit_tiny_distilled_patch16_224", ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"]),
    ("timm/levit_128s", [f"{head}.linear.{part}" for head in ("head", "head_dist") for part in ("weight", "bias")]),
]


@pytest.mark.parametrize(("name", "head"), HEADS)
def test_a_head_of_another_number_of_classes_stays_fresh(name: str, head: list[str]) -> None:
    """A thousand classes are fine-tuned to ten: everything but the head is the file's, the head is as it was drawn."""
    given = made(name, num_classes=1000, seed=1).state_dict()
    model = made(name, num_classes=10)
    drawn = copy.deepcopy(model.state_dict())
    assert load_weights(model, given, path="x.pt") == head
    loaded = model.state_dict()
    assert unequal(loaded, given) == sorted(head)
    assert not set(unequal(loaded, drawn)) & set(head)


@pytest.mark.parametrize("name", ["resnet18", "timm/convnext_atto"])
def test_with_the_same_classes_all_is_loaded(name: str) -> None:
    given = made(name, seed=1).state_dict()
    model = made(name, gradient_checkpointing=True, drop_path=0.1, blur_pool="convs")
    assert load_weights(model, given, path="x.pt") == []
    assert unequal(model.state_dict(), given) == []


def test_torchvisions_weights_make_timms_resnet50_compute_the_same() -> None:
    torchvisions, timms = made("resnet50"), made("timm/resnet50", seed=1)
    assert load_weights(timms, torchvisions.state_dict(), path="x.pt") == []
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(torchvisions.eval()(images), timms.eval()(images))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_names_are_taken_away(prefix: str) -> None:
    given = made("small_resnet", seed=1).state_dict()
    model = made("small_resnet")
    assert load_weights(model, {prefix + name: tensor for name, tensor in given.items()}, path="x.pt") == []
    assert unequal(model.state_dict(), given) == []


def test_a_part_that_is_called_module_keeps_its_name() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 3)

    model, given = Wrapped(), Wrapped().state_dict()
    load_weights(model, {f"module.{name}": tensor for name, tensor in given.items()}, path="x.pt")
    assert unequal(model.state_dict(), given) == []


def test_types_and_layout_stay_the_models() -> None:
    given = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in made("resnet18").state_dict().items()
    }
    model = made("resnet18", seed=1).to(memory_format=torch.channels_last)
    load_weights(model, given, path="x.pt")
    weight = model.get_parameter("layer1.0.conv1.weight")
    assert weight.dtype == torch.float32
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(weight.half(), given["layer1.0.conv1.weight"])


@pytest.mark.parametrize("arch", ["googlenet", "inception_v3"])
def test_published_weights_may_hold_auxiliary_heads(arch: str) -> None:
    import torchvision

    published = torchvision.models.get_model(arch, aux_logits=True, init_weights=False).state_dict()
    assert any(name.lower().startswith("aux") for name in published)
    model = made(arch)
    assert load_weights(model, published, path="x.pt") == ["fc.weight", "fc.bias"]
    assert unequal({**model.state_dict(), "fc.weight": Tensor(), "fc.bias": Tensor()}, dict(published)) == sorted(
        name for name in published if name.lower().startswith("aux") or name.startswith("fc.")
    )


def test_a_file_from_before_batch_counts_fits() -> None:
    given = {name: tensor for name, tensor in made("resnet18", seed=1).state_dict().items() if "num_batches" not in name}
    model = made("resnet18")
    assert load_weights(model, given, path="x.pt") == []
    assert set(unequal(model.state_dict(), given)) == {name for name in model.state_dict() if "num_batches" in name}


def wrong(change: str) -> tuple[dict[str, Tensor], str]:
    given = made("small_resnet", depth=8).state_dict()
    match change:
        case "missing":
            for name in [name for name in given if name.startswith("blocks.0.")]:
                del given[name]
            return given, (
                "lacks names of the model (12): blocks.0.conv1.weight, blocks.0.bn1.weight, blocks.0.bn1.bias, "
                "blocks.0.bn1.running_mean, blocks.0.bn1.running_var and more. Give weights of this very model."
            )
        case "unexpected":
            given |= {"more.weight": torch.ones(1), "module.others": torch.ones(1)}
            return given, "has names that the model lacks (2): more.weight, others. Give"
        case "shape":
            given["stem.0.weight"] = torch.ones(16, 1, 3, 3)
            return given, "has other shapes than the model (1): stem.0.weight (16, 1, 3, 3), not (16, 3, 3, 3). Give"
        case "head_width":
            given["fc.weight"] = torch.ones(7, 63)
            return given, "has other shapes than the model (1): fc.weight (7, 63), not (5, 64). Give"
        case _:
            del given["fc.bias"]
            given["fc.weight"] = torch.ones(7, 64)
            return given, "lacks names of the model (1): fc.bias. Give"


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape", "head_width", "half_a_head"])
def test_what_does_not_fit_is_named_and_nothing_is_loaded(change: str) -> None:
    given, message = wrong(change)
    model = made("small_resnet", depth=8, seed=1)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError) as caught:
        load_weights(model, given, path="weights/x.pt")
    assert f"model.weights = 'weights/x.pt': {message}" in str(caught.value)
    assert unequal(model.state_dict(), before) == []


def test_every_kind_of_misfit_is_told_at_once() -> None:
    given = made("small_resnet", depth=8).state_dict()
    del given["stem.1.bias"]
    given |= {"more": torch.ones(1), "stem.0.weight": torch.ones(1)}
    with pytest.raises(ConfigError, match="3 problems in the model"):
        load_weights(made("small_resnet", depth=8), given, path="x.pt")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pth.tar", ""])
@pytest.mark.parametrize("container", [None, "state_dict", "model"])
def test_a_torch_file_is_read_alone_or_from_its_container(tmp_path: Path, suffix: str, container: str | None) -> None:
    state = made("small_resnet", depth=8).state_dict()
    path = tmp_path / f"weights{suffix}"
    torch.save(state if container is None else {container: state, "epoch": 3, "optimizer": {"lr": 0.1}}, path)
    assert unequal(dict(read_state_dict(path)), dict(state)) == []


def test_the_old_format_and_safetensors_are_read(tmp_path: Path) -> None:
    state = made("small_resnet", depth=8).state_dict()
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "new.safetensors")
    for name in ("old.pth", "new.safetensors"):
        assert unequal(dict(read_state_dict(tmp_path / name)), dict(state)) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is no file of torch.save or of safetensors."),
        (b"<html>not found</html>", "is no file of torch.save or of safetensors."),
        (b"PK\x03\x04 and then something else", "cannot be read as tensors only"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{broken}", "is a damaged safetensors file"),
        ({"epoch": 3}, "holds no state dict, neither alone nor as 'state_dict' or 'model'."),
        ({}, "holds no state dict"),
        ([torch.ones(1)], "holds no state dict"),
        (nn.Linear(1, 1), "Save the state dict alone: torch.save(model.state_dict(), path)."),
        ({"model": {"a": torch.ones(1)}, "args": Path("x")}, "cannot be read as tensors only"),
    ],
)
def test_other_files_are_refused_with_the_reason(tmp_path: Path, content: Any, why: str) -> None:
    path = tmp_path / "file.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ConfigError) as caught:
        read_state_dict(path)
    message = str(caught.value)
    assert f"model.weights = '{path}': " in message
    assert why in message
    assert len(message.splitlines()) == 2


def test_a_path_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.pt", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=why):
            read_state_dict(path)
