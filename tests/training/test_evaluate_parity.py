"""Evaluation of a torchvision state dict equals a plain torchvision loop: Resize and CenterCrop on decoded tensors, antialiased."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from src.evaluate import main

ROOT = Path(__file__).resolve().parents[2]
REAL_IMAGES = ROOT.parent / "shared" / "data" / "imagenet-sample"
FASHION = ROOT / "data" / "fashion_mnist"
BATCH, ARCH = 50, "resnet18"
BOUND = 1e-5  # of the logits' standard deviation: torchvision normalises in another order, (x / 255 - mean) / std


def pixels_of(folder: Path, resize_size: int, image_size: int) -> tuple[Tensor, Tensor]:
    """Return uint8 (N, 3, S, S) and the labels, by torchvision's ImageFolder and transforms alone."""
    samples = torchvision.datasets.ImageFolder(folder).samples
    prepare = v2.Compose([v2.Resize(resize_size, antialias=True), v2.CenterCrop(image_size)])
    images = []
    for path, _ in samples:
        with Image.open(path) as image:
            images.append(prepare(functional.pil_to_tensor(image.convert("RGB"))))
    return torch.stack(images), torch.tensor([label for _, label in samples])


@torch.no_grad()
def plain_logits(model: nn.Module, pixels: Tensor, mean: list[float], std: list[float]) -> Tensor:
    """The loop that everybody writes."""
    normalise = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    model.eval()
    return torch.cat([model(normalise(part)) for part in pixels.split(BATCH)])


def evaluated(capsys: pytest.CaptureFixture[str], target: Path, *typed: str) -> tuple[dict[str, Any], NDArray[np.float32]]:
    model = (f"model={ARCH}", f"eval_batch_size={BATCH}", "data=imagefolder", "precision=fp32")
    assert main([*model, *typed, f"target={target}", "logits=true", "compare=pillow"]) == 0
    with np.load(target / "logits.npz", allow_pickle=False) as found:
        return json.loads(capsys.readouterr().out.splitlines()[-1]), found["logits"]


def trained_a_little(pixels: Tensor, labels: Tensor, mean: list[float], std: list[float], steps: int) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = torchvision.models.get_model(ARCH, weights=None, num_classes=10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.5  # a dozen steps are too few for the usual tenth
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    normalise = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    for order in torch.randint(0, len(labels), (steps, 32)):
        loss = nn.functional.cross_entropy(model(normalise(pixels[order])), labels[order])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model


@pytest.mark.skipif(not FASHION.is_dir(), reason="data/fashion_mnist is not there: make data")
@pytest.mark.parametrize(
    ("images", "steps"), [(10, 12), pytest.param(1000, 120, marks=pytest.mark.long)], ids=["100 images", "all 10,000 images"]
)
def test_accuracy_on_fashion_mnist_is_the_plain_loops(
    images: int, steps: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Enlarged to 36 px and cut to 32: the resize is not an identity. Counts are equal, not only percents that look alike."""
    for folder in sorted((FASHION / "val").iterdir()):
        (tmp_path / "val" / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:images]:
            (tmp_path / "val" / folder.name / path.name).symlink_to(path)
    mean, std = [0.286] * 3, [0.353] * 3
    pixels, labels = pixels_of(tmp_path / "val", 36, 32)
    model = trained_a_little(pixels, labels, mean, std, steps)  # on what it is asked about: only equality matters
    torch.save({"model": {f"module.{name}": tensor for name, tensor in model.state_dict().items()}}, tmp_path / "w.pth")
    sizes = ("data.resize_size=36", "data.image_size=32", f"data.mean={mean}", f"data.std={std}".replace(" ", ""))
    where = (f"data.path={tmp_path}", f"data.cache_dir={tmp_path}/cache")
    said, logits = evaluated(capsys, tmp_path / "t", f"checkpoint={tmp_path}/w.pth", *sizes, *where)
    plain = plain_logits(model, pixels, mean, std)
    assert said["images"] == len(labels) == 10 * images
    assert float(np.abs(logits - plain.numpy()).max()) < BOUND * float(plain.std())
    hits = plain.topk(5).indices == labels[:, None]
    assert round(said["val_acc1"] * len(labels) / 100) == int(hits[:, 0].sum())
    assert round(said["val_acc5"] * len(labels) / 100) == int(hits.any(1).sum())
    assert said["val_acc1"] > 30  # it has learnt something: not every image is of the same class to it
    assert said["val_loss"] == pytest.approx(float(nn.functional.cross_entropy(plain.double(), labels)), rel=1e-5)
    with (tmp_path / "t" / "per_class.csv").open(newline="") as file:
        by_class = [float(row["acc1"]) for row in csv.DictReader(file)]
    assert by_class == pytest.approx([100 * float(hits[labels == label, 0].double().mean()) for label in range(10)])
    pillow = said["pillow"]
    assert abs(pillow["acc1"] - said["val_acc1"]) < 1 and pillow["same_first"] > 98 and pillow["mean_abs_pixel"] < 0.5
    print(len(labels), said["val_acc1"], float(np.abs(logits - plain.numpy()).max()), pillow)


@pytest.mark.skipif(not REAL_IMAGES.is_dir(), reason="../shared/data/imagenet-sample is not there: it is no part of the project")
@pytest.mark.parametrize("classes", [20, pytest.param(200, marks=pytest.mark.long)])
def test_logits_on_real_images_are_the_plain_loops(classes: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "val").mkdir()
    for folder in sorted(REAL_IMAGES.glob("n*"))[:classes]:
        (tmp_path / "val" / folder.name).symlink_to(folder)
    torch.manual_seed(0)
    model = torchvision.models.get_model(ARCH, weights=None, num_classes=classes)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    where = (f"data.path={tmp_path}", f"data.cache_dir={tmp_path}/cache", "channels_last=false")
    said, logits = evaluated(capsys, tmp_path / "t", f"checkpoint={tmp_path}/w.pth", *where)
    pixels, _ = pixels_of(tmp_path / "val", 256, 224)
    plain = plain_logits(model, pixels, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert float(plain.std()) > 0.1
    assert float(np.abs(logits - plain.numpy()).max()) < BOUND * float(plain.std())
    # torchvision's one step that rounds otherwise is its Normalize. With ours on its pixels, no bit differs.
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        same = torch.cat([model((part.float() - mean * 255) * (std * 255).reciprocal()) for part in pixels.split(BATCH)])
    assert torch.equal(torch.from_numpy(logits), same)
    assert 0 < said["pillow"]["mean_abs_logit"] < 0.01
    print(classes, float(np.abs(logits - plain.numpy()).max()), float(plain.std()), said["pillow"])
