"""A file of weights is read in the one way that it can be read, or refused by its name."""

import hashlib
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from src.config import Config, ConfigError, load
from src.models import published as module
from src.models.published import Preparation, prepared_as_published, published
from src.models.readings import classes_in, read_weights


def weights(classes: int = 7) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return torchvision.models.shufflenet_v2_x0_5(num_classes=classes).state_dict()


def other(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor + 1 for name, tensor in state.items()}


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def equal(found: object, state: dict[str, Tensor], prefix: str = "") -> bool:
    assert isinstance(found, dict)
    return found.keys() == {prefix + name for name in state} and all(torch.equal(found[prefix + n], state[n]) for n in state)


def test_wrapped_as_training_scripts_do(tmp_path: Path) -> None:
    state, path = weights(), tmp_path / "w.pth"
    for content in (state, {"model": state, "epoch": 3}, {"state_dict": state, "arch": "x"}):
        found = read_weights(saved(path, content), trained=False)
        assert found.weights == "trained" and equal(found.state_dict, state)
    save_file({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "w.safetensors")
    assert equal(read_weights(tmp_path / "w.safetensors", trained=False).state_dict, state, "module.")


def test_a_mean_beside_the_weights_is_taken_unless_the_trained_ones_are_asked_for(tmp_path: Path) -> None:
    state = weights()
    mean = {f"module.{name}": tensor for name, tensor in other(state).items()} | {"n_averaged": torch.tensor(9)}
    for names in (("model", "model_ema"), ("state_dict", "state_dict_ema")):
        path = saved(tmp_path / "w.pth", dict(zip(names, (state, mean), strict=True)))
        found = read_weights(path, trained=False)
        assert found.weights == "ema" and equal(found.state_dict, other(state), "module.")
        found = read_weights(path, trained=True)
        assert found.weights == "trained" and equal(found.state_dict, state)


class Bait:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (self.path,))  # type: ignore[return-value]


def test_what_has_two_readings_or_none_is_refused_by_name(tmp_path: Path) -> None:
    state, path, bait = weights(), tmp_path / "odd.pth", tmp_path / "bait"
    whole = saved(tmp_path / "whole.pth", state).read_bytes()
    cases: list[tuple[object, str]] = [
        ({"model": state, "state_dict": state}, "holds weights as 'state_dict' and as 'model'"),
        (state | {"module.fc.bias": state["fc.bias"]}, "holds 'fc.bias' twice, as 'fc.bias' and as 'module.fc.bias'"),
        ({"_orig_mod.module.fc.bias": state["fc.bias"], "fc.bias": state["fc.bias"]}, "holds 'fc.bias' twice"),
        ({"weights": state, "epoch": 1}, "it holds 'weights', 'epoch'"),
        ([1, 2], "holds a list"),
        ({"model": state, "more": Bait(bait)}, "cannot be read as tensors only"),
        (whole[: len(whole) // 2], "cannot be read as tensors only"),
        (b"nothing of the kind", "is no file of torch.save or of safetensors"),
    ]
    for content, said in cases:
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            saved(path, content)
        with pytest.raises(ConfigError, match=said.replace("(", r"\(")) as caught:
            read_weights(path, trained=False)
        assert str(path) in str(caught.value)
    assert not bait.exists()


@pytest.mark.parametrize(
    ("typed", "build"),
    [
        ("model=shufflenet_v2_x0_5", lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=7)),
        ("model=squeezenet1_1", lambda: torchvision.models.squeezenet1_1(num_classes=7)),  # its head is a convolution
        ("model=timm/mobilenetv3_small_050", None),
    ],
)
def test_the_number_of_classes_is_the_heads(tmp_path: Path, typed: str, build: object) -> None:
    if build is None:
        import timm

        state = timm.create_model("mobilenetv3_small_050", num_classes=7).state_dict()
    else:
        assert callable(build)
        state = build().state_dict()
    config = load([typed]).model
    assert classes_in(tmp_path, state, config) == 7
    assert classes_in(tmp_path, {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()}, config) == 7
    with pytest.raises(ConfigError, match=r"is not of model=vit_b_16: it lacks heads.head.weight"):
        classes_in(tmp_path, state, load(["model=vit_b_16"]).model)


def wanted(known: list[Preparation], *typed: str) -> tuple[Config, list[str]]:
    config = load(typed)
    overrides, notes = prepared_as_published(known, config, [text.partition("=")[0] for text in typed])
    return load([*typed, *overrides]), notes


def test_a_published_file_is_known_by_its_content_and_another_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both projects name files by the first eight digits of their sha256; here one of ResNet-50's two gets that of our file."""
    path = saved(tmp_path / "renamed.pth", weights())
    resnet = load(["model=resnet50"]).model
    first, second = published(resnet, path, 1000)
    assert [(one.resize_size, one.image_size, one.certain) for one in (first, second)] == [(256, 224, False), (232, 224, False)]
    config, (note,) = wanted([first, second], "model=resnet50")
    assert config.data.resize_size == 256 and "256/224 bilinear; " in note and "232/224" in note
    real = list(module._of_torchvision("resnet50", 1000))
    assert [digest for digest, _ in real] == ["0676ba61", "11ad3fa6"]  # as the files are called
    ours = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(module, "_of_torchvision", lambda arch, count: iter([real[0], (ours, real[1][1])]))
    (found,) = published(resnet, path, 1000)
    assert found.certain and found.resize_size == 232
    config, (note,) = wanted([found], "model=resnet50")
    assert config.data.resize_size == 232 and "IMAGENET1K_V2" in note and "as the file is published" in note
    assert wanted([found], "model=resnet50", "data.resize_size=240")[0].data.resize_size == 240


def test_timms_own_preparation_is_taken_where_nothing_else_was_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", weights())
    typed = "model=timm/resnet50"
    known = published(load([typed]).model, path, 1000)
    assert [(one.resize_size, one.image_size, one.interpolation) for one in known] == [(288, 288, "bicubic")]
    config, (note,) = wanted(known, typed)
    data = config.data
    assert (data.resize_size, data.eval_image_size, data.eval_interpolation, data.image_size) == (288, 288, "bicubic", 224)
    assert "a1_in1k" in note and "the architecture's default" in note
    data = wanted(known, typed, "data.eval_image_size=224", "data.interpolation=bilinear")[0].data
    assert (data.resize_size, data.eval_image_size, data.eval_interpolation) == (256, 224, "bilinear")
    data = wanted(known, typed, "data=synthetic")[0].data  # which has sizes of its own
    assert (data.resize_size, data.eval_image_size) == (36, 32)
    assert published(load([typed]).model, path, 10) == []  # weights of somebody else's training
    (tagged,) = published(load(["model=timm/resnet50.a3_in1k"]).model, path, 1000)
    assert "a3_in1k" in tagged.origin and (tagged.resize_size, tagged.image_size) == (235, 224)
