"""The model card: its lines load the model without this project, its front matter is Hugging Face's, its figures are the run's."""

import json
import math
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import ModelCard
from PIL import Image

from src.config import load
from src.exporting.about import _crop_share, describe
from src.exporting.card import model_card
from src.predictor import Predictor, encoded
from src.trained import build_trained, open_trained
from src.training.precision import choose_precision
from tests.pictures import encode
from tests.unit.exporting.small_runs import CPU, SECRET, SMALL, Exports, write_run

FP32 = choose_precision("fp32", CPU)
Exported = tuple[Path, dict[str, Any]]
IMAGE_64 = ("data.image_size=32", "data.resize_size=40", "data.stored_size=40")


def code_of(card: str) -> str:
    """Return the Python that the card shows: how to load the model."""
    return card.partition("```python\n")[2].partition("```")[0]


def logits_by_the_card(folder: Path) -> torch.Tensor:
    """Type the card's lines in a fresh process that stands in the folder and cannot see the project."""
    image = encode("jpeg", 61, 47, 3)
    (folder / "image.jpg").write_bytes(image)
    script = code_of((folder / "README.md").read_text()) + "\nwith torch.no_grad():\n    torch.save(model(images), 'logits.pt')\n"
    loads = [sys.executable, "-I", "-c", f"import sys; sys.modules['src'] = None\n{script}"]
    done = subprocess.run(loads, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    label, share = done.stdout.rsplit(maxsplit=1)
    logits = torch.load(folder / "logits.pt", weights_only=True)
    assert label == (folder / "labels.txt").read_text().splitlines()[int(logits.argmax())]
    assert float(share) == pytest.approx(float(logits.softmax(1).max()), abs=1e-6)
    return logits


def our_logits(checkpoint: Path) -> torch.Tensor:
    trained = open_trained(checkpoint, [])
    return Predictor(trained.config, build_trained(trained, FP32, CPU), FP32, CPU).logits([encoded(encode("jpeg", 61, 47, 3))])


@pytest.mark.parametrize(
    ("model", "begins"),
    [
        (("model=resnet18", *IMAGE_64), "import torchvision"),
        pytest.param(("model=googlenet", *IMAGE_64), "import torchvision", marks=pytest.mark.long),
        pytest.param(("model=timm/resnet10t", *IMAGE_64), "import timm", marks=pytest.mark.long),
        (("model=small_resnet", "model.width=4"), "import torch\n"),
        pytest.param(("model=resnet18", "model.blur_pool=convs", *IMAGE_64), "import torch\n", marks=pytest.mark.long),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value[:2]),
)
def test_the_card_s_lines_give_our_logits_without_this_project(
    model: tuple[str, ...], begins: str, tmp_path: Path, run_export: Exports
) -> None:
    run = write_run(tmp_path / "run", *SMALL[:-2], *model)
    run_export(run, tmp_path / "out", "formats=safetensors,torch_export", "check_images=0")
    assert code_of((tmp_path / "out" / "README.md").read_text()).startswith(begins)
    found, expected = logits_by_the_card(tmp_path / "out"), our_logits(run)
    assert (found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("model", ["resnet18", pytest.param("timm/resnet10t", marks=pytest.mark.long)])
def test_timm_loads_the_folder_where_the_architecture_is_timm_s(model: str, tmp_path: Path, run_export: Exports) -> None:
    run = write_run(tmp_path / "run", *SMALL[:-2], f"model={model}", *IMAGE_64)
    run_export(run, tmp_path / "out", "formats=safetensors", "check_images=0")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    ours = build_trained(open_trained(run, []), FP32, CPU)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(theirs(images), ours(images), atol=1e-5)
    how = timm.data.resolve_data_config(pretrained_cfg=theirs.pretrained_cfg)
    config = open_trained(run, []).config.data
    assert how["input_size"] == [3, 32, 32]
    assert tuple(how["mean"]) == config.mean
    resize = timm.data.create_transform(**how, is_training=False).transforms[0]
    assert resize.size == config.resize_size
    assert "local-dir" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("model", ["efficientnet_b0", pytest.param("vit_b_16", marks=pytest.mark.long)])
def test_an_architecture_that_timm_knows_otherwise_is_not_called_by_timm_s_name(model: str, tmp_path: Path) -> None:
    size = "data.image_size=224" if model == "vit_b_16" else "data.image_size=32"
    config = load([*SMALL[:-2], f"model={model}", size, "data.resize_size=224"])
    with torch.device("meta"):
        from src.models.build import build_model

        meta = build_model(config.model, num_classes=10)
    model_ = meta.to_empty(device="cpu").eval()
    with torch.no_grad():
        for tensor in model_.state_dict().values():
            tensor.zero_()
    trained = open_trained(write_run(tmp_path / "run", *SMALL), [])._replace(config=config)
    assert describe(trained, model_)["architecture"] == f"torchvision/{model}"


@pytest.mark.parametrize("size", [28, 32, 128, 160, 176, 192, 224, 240, 288, 299, 384, 448])
def test_timm_resizes_to_the_very_size(size: int) -> None:
    for resize in range(size, size + 120):
        assert math.floor(size / _crop_share(size, resize)) == resize
        assert abs(_crop_share(size, resize) - size / resize) < 1e-12


def test_the_front_matter_is_read_by_hugging_face(exported: Exported) -> None:
    card = ModelCard.load(exported[0] / "README.md")
    assert card.data.license == "mit"
    assert card.data.library_name == "pytorch"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.model_name == "small"
    figures = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert figures == {"top-1 accuracy (%)": 12.5, "top-5 accuracy (%)": 62.5}
    assert {result.dataset_name for result in card.data.eval_results} == {"synthetic"}


def test_the_card_tells_figures_protocol_command_commit_versions_and_hyperparameters(exported: Exported) -> None:
    folder, result = exported
    text = (folder / "README.md").read_text()
    for words in (
        "12.500 %",
        "Protocol: split val, images 130, weights trained, engine torchvision",
        "python -m src.train 'hf_token=***' run_name=small",
        "commit: `0123456789abcdef`",
        "Python 3.11.7, torch 2.15.0",
        "| optim.peak_lr |",
        f"| onnx | {result['formats']['onnx']['bytes']:,} |",
        "opset 18",
        "## Limits",
    ):
        assert words in text
    assert SECRET not in text


def test_figures_are_not_told_of_other_weights_than_they_were_counted_with(tmp_path: Path, run_export: Exports) -> None:
    run = write_run(tmp_path / "averaged", *SMALL, "average=ema", average="ema")
    for weights, told in (("evaluated", True), ("trained", False)):
        run_export(run, tmp_path / weights, f"weights={weights}", "formats=safetensors", "check_images=0")
        text = (tmp_path / weights / "README.md").read_text()
        assert ("12.500 %" in text) is told
        assert (ModelCard(text).data.eval_results is not None) is told


def test_odd_names_of_classes_and_runs_stay_one_line_and_valid_yaml(exported: Exported, tmp_path: Path) -> None:
    folder, result = exported
    description = json.loads((folder / "config.json").read_text())
    description["config"]["data"]["name"] = "a: b # c\n- d"
    card = ModelCard(model_card("x: [y] # {z}", description, result, license_name="other: yes"))
    assert card.data.license == "other: yes"
    assert card.data.model_name == "x: [y] # {z}"


def test_what_the_card_tells_follows_from_what_was_described_and_measured(exported: Exported) -> None:
    folder, result = exported
    description: dict[str, Any] = json.loads((folder / "config.json").read_text())

    def card(**changes: Any) -> tuple[ModelCard, str]:
        whole = model_card("x", description | changes, result | changes, license_name="mit")
        return ModelCard(whole), whole

    plain, text = card()
    assert plain.data.tags == ["image-classification", "onnx"]
    assert plain.data.get("datasets") is None and "was not stated" not in text
    assert "of step 7 of the run `small`" in text and "uncommitted" not in text
    assert "- `model.onnx`" in text and "- `labels.txt`" in text and "model.int8.onnx" not in text
    assert "on 130 images of the validation split" in text
    onnx = result["formats"]["onnx"]
    accuracy, difference = f"{result['check']['model']['acc1']:.3f} %", f"{onnx['max_difference']:.3g}"
    assert f"| PyTorch | - | {accuracy} | - | - |" in text
    assert f"| onnx | {onnx['bytes']:,} | {accuracy} | {difference} | 0 |" in text
    assert "license of these weights was not stated" in model_card("x", description, result, license_name="unknown")

    known, _ = card(config=description["config"] | {"data": description["config"]["data"] | {"name": "cifar10"}})
    assert known.data.datasets == ["uoft-cs/cifar10"]
    thousand, text = card(num_classes=1000, classes=["n01440764"], labels=[f"label {number}" for number in range(1000)])
    assert thousand.data.datasets == ["ILSVRC/imagenet-1k"]
    assert "1000 classes (label 0, label 1, " in text and "label 9, ...)" in text and "label 10" not in text
    timms, _ = card(architecture="resnet18", pretrained_cfg=description["pretrained_cfg"] | {"classifier": "fc"})
    assert (timms.data.library_name, timms.data.tags[1]) == ("timm", "timm")

    counted, text = card(history=[])
    assert {one.metric_value for one in counted.data.eval_results} == {
        round(result["check"]["model"][key], 4) for key in ("acc1", "acc5")
    }
    assert "recorded no evaluation of these very weights" in text and "12.500 %" not in text
    part, text = card(history=[], check=result["check"] | {"all": False})
    assert part.data.eval_results is None
    noise = {"images": 64, "real": False, "all": False, "model": {}}
    bare = {"formats": {"onnx": {key: value for key, value in onnx.items() if key != "acc1"}}}
    unlabelled, _ = card(history=[], check=result["check"] | {"model": {}}, formats={})
    assert unlabelled.data.eval_results is None and unlabelled.data.tags == ["image-classification"]
    _, text = card(check=noise, **bare)
    assert "on 64 images of noise" in text
    assert "| PyTorch | - | - | - | - |" in text and f"| onnx | {onnx['bytes']:,} | - | {difference} | 0 |" in text

    _, text = card(step=None, provenance=None)
    assert "of step unknown" in text and "- commit" not in text
    _, text = card(provenance=description["provenance"] | {"git_dirty": True})
    assert "`0123456789abcdef` with uncommitted changes" in text and "- started: 2026-11-22" in text
    _, text = card(config=description["config"] | {"loss": "a|b\nc", "max_grad_norm": None})
    assert "| loss | a\\|b c |" in text and "| max_grad_norm | null |" in text


def test_a_pruned_models_card_tells_what_it_cost(exported: Exported) -> None:
    folder, result = exported
    size = {"parameters": 2000, "nonzero": 1500, "file_bytes": 8000, "compressed_bytes": 7000, "acc1": 50.0}
    told = {"share": 0.5, "kind": "channels", "epochs": 3, "images": 130, "before": size, "after": size | {"acc1": 49.5}}
    text = model_card("x", json.loads((folder / "config.json").read_text()), result | {"pruning": told}, license_name="mit")
    assert "Pruned: 50% of the weights (channels), then 3 epochs of training; top-1 on 130 images" in text
    assert "| before | 50.000 % | 2,000 | 1,500 | 8,000 | 7,000 |" in text
    assert "| after | 49.500 % | 2,000 | 1,500 | 8,000 | 7,000 |" in text


def test_images_are_prepared_as_in_evaluation_also_for_a_palette_and_alpha(exported: Exported, tmp_path: Path) -> None:
    """The card's lines convert to RGB as evaluation does: bytes of each kind give the same pixels."""
    folder, _ = exported
    lines = code_of((folder / "README.md").read_text())
    prepare = lines[lines.index("import torch") : lines.index("images = preprocess")].replace(
        'model = torch.export.load("model.pt2").module()', ""
    )
    space: dict[str, Any] = {}
    exec(textwrap.dedent(prepare), space)
    trained = open_trained(folder, [])
    predictor = Predictor(trained.config, torch.nn.Identity(), FP32, CPU)
    for kind in ("png", "cmyk", "grey"):
        data = encode(kind, 40, 30, 5)
        (tmp_path / kind).write_bytes(data)
        with Image.open(tmp_path / kind) as image:
            found = space["preprocess"](image.convert("RGB"))[None]
        expected = predictor.logits([encoded(data)])
        assert (found - expected).abs().max() < 1e-5, kind
