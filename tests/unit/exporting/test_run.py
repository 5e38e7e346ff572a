"""Every exported form computes what the model computes, for any number of images, and is refused where it does not."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from src.config import ConfigError, load
from src.exporting import onnx_file
from src.exporting.check import ExportError
from src.exporting.onnx_file import write_onnx
from src.exporting.onnx_runtime import open_onnx
from src.exporting.program import export_program, read_program, run_program
from src.model_folder import read_model_folder
from src.trained import build_trained, open_trained
from src.training.precision import choose_precision
from tests.unit.exporting.small_runs import CPU, SECRET, SMALL, Exports, model_of, write_run

FP32 = choose_precision("fp32", CPU)
Exported = tuple[Path, dict[str, Any]]
ODD_MODELS = """
import torch
from torch import nn

class Odd(nn.Module):
    def __init__(self, num_classes, kind):
        super().__init__()
        self.fc, self.kind = nn.Linear(3, num_classes), kind

    def forward(self, images):
        means = images.mean((2, 3))
        if self.kind == "branching":
            return self.fc(means if means.sum().item() > 0 else -means)
        if self.kind == "fixed":
            assert len(images) in (2, 4)
        if self.kind == "random":
            return self.fc(means) + torch.rand(1)
        return (self.fc(means), means) if self.kind == "two" else self.fc(means)

def build(num_classes, kind):
    return Odd(num_classes, kind)
"""


def test_all_formats_are_compared_on_every_image_of_the_split(exported: Exported) -> None:
    _, result = exported
    assert result["status"] == "finished"
    assert result["check"]["images"] == 130
    assert result["check"]["all"]
    assert result["check"]["batch_sizes"] == [1, 3, 64]
    assert list(result["formats"]) == ["safetensors", "torch_export", "onnx"]
    for name in ("torch_export", "onnx"):
        form = result["formats"][name]
        assert form["different_predictions"] == 0
        assert form["acc1"] == result["check"]["model"]["acc1"]
        assert 0 <= form["max_difference"] < 1e-4


def test_the_files_are_there_and_of_the_size_that_is_told(exported: Exported) -> None:
    folder, result = exported
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md",
        "config.json",
        "labels.txt",
        "model.onnx",
        "model.pt2",
        "model.safetensors",
    ]
    for form in result["formats"].values():
        assert (folder / form["file"]).stat().st_size == form["bytes"]
    assert (folder / "labels.txt").read_text().splitlines() == [f"class_{label}" for label in range(10)]
    assert result["opset"] == 18


def test_the_weights_are_those_of_the_checkpoint_bit_for_bit(exported: Exported) -> None:
    folder, result = exported
    state = torch.load(result["checkpoint"], weights_only=True)["model"]
    _, found = read_model_folder(folder)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) and found[name].dtype == state[name].dtype for name in state)


def test_each_form_gives_the_model_s_logits_at_any_batch_size(exported: Exported) -> None:
    folder, _ = exported
    model = build_trained(open_trained(folder, []), FP32, CPU)
    program, session = read_program(folder / "model.pt2"), open_onnx(folder / "model.onnx", threads=1)
    for size in (1, 2, 3, 7, 64, 65):
        images = torch.randn(size, 3, 16, 16, generator=torch.Generator().manual_seed(size))
        with torch.no_grad():
            expected = model(images)
        assert (run_program(program, images) - expected).abs().max() < 1e-5
        assert (session(images) - expected).abs().max() < 1e-5


def test_the_onnx_file_is_described_as_others_need_it(exported: Exported) -> None:
    graph = onnx.load(exported[0] / "model.onnx").graph
    shapes = {}
    for value in (*graph.input, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        shapes[value.name] = [size.dim_param or size.dim_value for size in sizes]
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert shapes == {"images": ["batch", 3, 16, 16], "logits": ["batch", 10]}


def test_nothing_of_this_machine_nor_a_secret_stands_in_the_folder(exported: Exported) -> None:
    folder, _ = exported
    source = str(Path(onnx_file.__file__).parents[1]).encode()
    packages = str(Path(torch.__file__).parents[1]).encode()
    for file in folder.iterdir():
        content = file.read_bytes()
        for word in (source, packages, SECRET.encode()):
            assert word not in content, f"{file.name} holds {word!r}"


def test_an_average_is_exported_where_it_is_what_the_run_evaluates(tmp_path: Path, run_export: Exports) -> None:
    run = write_run(tmp_path / "averaged", *SMALL, "average=ema", average="ema")
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    for weights, name, expected in (("evaluated", "ema", "evaluation"), ("trained", "trained", "model")):
        target = tmp_path / weights
        result = run_export(run, target, f"weights={weights}", "formats=safetensors", "check_images=0")
        description, found = read_model_folder(target)
        assert result["weights"] == description["weights"] == name
        assert all(torch.equal(found[key], state[expected][key]) for key in found)


def test_an_export_of_an_export_is_the_same_model(exported: Exported, tmp_path: Path, run_export: Exports) -> None:
    folder, _ = exported
    run_export(folder, tmp_path / "again", "formats=safetensors", "license=mit")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == json.loads((folder / "config.json").read_text())


def test_the_evaluation_s_own_layout_of_blocks_and_dropped_paths_is_left_alone(tmp_path: Path) -> None:
    config = load([*SMALL, "model.width=16", "model.gradient_checkpointing=true", "model.drop_path=0.5", "model.blur_pool=convs"])
    model = model_of(config)
    before = {name: (tensor.clone(), tensor.stride()) for name, tensor in model.state_dict().items()}
    trained = open_trained(write_run(tmp_path / "run", *SMALL), [])
    write_onnx(trained, model, tmp_path / "model.onnx")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name][0])
        assert tensor.stride() == before[name][1]
    assert all(parameter.requires_grad for parameter in model.parameters())
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        assert (open_onnx(tmp_path / "model.onnx", threads=1)(images) - model(images)).abs().max() < 1e-5


def test_large_weights_lie_beside_the_onnx_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "_EMBEDDED_BYTES", 1000)
    model = model_of(load([*SMALL]))
    onnx_file.write_program_as_onnx(export_program(model, 16), tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").stat().st_size > 10 * 1000
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        assert (open_onnx(tmp_path / "model.onnx", threads=1)(images) - model(images)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("branching", ConfigError, "cannot be exported for any number of images"),
        ("fixed", ConfigError, "cannot be exported for any number of images"),
        ("two", ConfigError, "more than one tensor"),
        ("random", ExportError, "torch_export: a logit differs by"),
    ],
)
def test_a_model_that_would_be_another_elsewhere_is_refused(
    kind: str,
    error: type[Exception],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    run_export: Exports,
) -> None:
    (tmp_path / "odd_models.py").write_text(ODD_MODELS)
    monkeypatch.syspath_prepend(tmp_path)
    custom = ("model=custom", "model.factory=odd_models:build", f"model.kwargs.kind={kind}")
    run = write_run(tmp_path / kind, *SMALL[:-2], *custom)
    with pytest.raises(error, match=words):
        run_export(run, tmp_path / "out", "formats=torch_export", "check_images=0")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name not in ("__pycache__", "odd_models.py")) == [kind]
    assert "def forward" not in "".join(capfd.readouterr())


def test_a_folder_that_names_code_is_opened_only_where_the_user_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_export: Exports
) -> None:
    (tmp_path / "odd_models.py").write_text(ODD_MODELS)
    monkeypatch.syspath_prepend(tmp_path)
    run = write_run(tmp_path / "own", *SMALL[:-2], "model=custom", "model.factory=odd_models:build", "model.kwargs.kind=plain")
    run_export(run, tmp_path / "out", "formats=safetensors", "check_images=0")
    with pytest.raises(ConfigError, match="odd_models:build, code that the folder names"):
        open_trained(tmp_path / "out", [])
    assert open_trained(tmp_path / "out", ["model.factory=odd_models:build"]).run == "own"


def test_images_that_are_missing_are_told_with_what_does_without_them(tmp_path: Path, run_export: Exports) -> None:
    run = write_run(tmp_path / "run", "data=fashion_mnist", "data.path=/nowhere", "model=small_resnet", "model.width=4")
    with pytest.raises(ConfigError) as caught:
        run_export(run, tmp_path / "out")
    assert "check_images=0" in str(caught.value)
    assert "/nowhere" in str(caught.value)
    result = run_export(run, tmp_path / "out", "check_images=0", "formats=safetensors,torch_export")
    assert result["check"]["real"] is False
    assert "acc1" not in result["formats"]["torch_export"]


def test_other_classes_than_the_data_s_are_refused(tmp_path: Path, run_export: Exports) -> None:
    run = write_run(tmp_path / "run", *SMALL)
    with pytest.raises(ConfigError, match="its 9 classes are not the 10"):
        run_export(run, tmp_path / "out", "data.num_classes=9")


@pytest.mark.long
@pytest.mark.parametrize(
    "model",
    [
        ("model=resnet18", "model.blur_pool=convs_and_max_pool", "model.drop_path=0.1", "model.gradient_checkpointing=true"),
        ("model=resnet50", "data.image_size=224", "data.resize_size=256"),
        ("model=googlenet", "data.image_size=64", "data.resize_size=72"),
        ("model=efficientnet_b0", "data.image_size=64", "data.resize_size=72"),
        ("model=timm/resnet26d", "model.gradient_checkpointing=true", "data.image_size=64", "data.resize_size=72"),
        ("model=timm/convnext_atto", "model.drop_path=0.1", "data.image_size=64", "data.resize_size=72"),
        ("model=timm/vit_tiny_patch16_224", "data.image_size=224", "data.resize_size=256"),
    ],
    ids=lambda model: model[0],
)
def test_architectures_of_torchvision_and_timm_are_exported(model: tuple[str, ...], tmp_path: Path, run_export: Exports) -> None:
    run = write_run(tmp_path / "run", *SMALL[:-2], *model)
    result = run_export(run, tmp_path / "out", "check_images=70")
    for name in ("torch_export", "onnx"):
        assert result["formats"][name]["different_predictions"] == 0
        assert result["formats"][name]["max_difference"] < 1e-4
