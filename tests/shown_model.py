"""A small model with random weights as a run's folder: what the demo page shows in tests. And odd images of every kind."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from src.build_model import build_live_model
from src.config import load
from src.training.checkpoint_file import SCHEMA
from src.training.precision import choose_precision
from tests.pictures import encode, noise

CLASSES = (
    "n01440764",
    "n01443537",
    "n01484850",
    "n01491361",
    "n01494475",
    "n01496331",
    "n01514668",
)  # of ImageNet: tench, goldfish, ...
SETTINGS = ("data=imagefolder", "model=small_resnet", "data.resize_size=40", "data.image_size=32", "data.engine=torchvision")


def write_run(folder: Path, more: Sequence[str] = ()) -> Path:
    """Write a run's folder with its best checkpoint, and return it."""
    config = load([*SETTINGS, *more])
    model = build_live_model(config, choose_precision("fp32", torch.device("cpu")), torch.device("cpu"), num_classes=len(CLASSES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    state = {
        "schema": SCHEMA,
        "step": 7,
        "config": config.model_dump(mode="json"),
        "classes": list(CLASSES),
        "model": model.state_dict(),
        "evaluation": None,
        "history": [],
    }
    path = folder / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    return folder


def odd_images() -> dict[str, bytes]:
    """Return sound images of every kind, by file name: all that decoders and viewers treat otherwise than a plain photograph."""
    rgba = Image.fromarray(np.dstack([noise(70, 50, 3), np.tile(np.arange(70, dtype=np.uint8) * 3, (50, 1))]))
    deep = Image.fromarray((noise(64, 48, 5)[:, :, 0].astype(np.uint16) * 257).astype(np.uint16))
    rotated = Image.Exif()
    rotated[0x0112] = 6
    frames = [Image.fromarray(noise(60, 44, number)) for number in (7, 8, 9)]
    palette = rgba.convert("RGB").quantize(32)
    return {
        **{
            f"{kind}.{'png' if kind in ('png', 'palette') else 'jpg'}": encode(kind, 71, 53)
            for kind in ("jpeg", "progressive", "grey", "cmyk", "png", "palette")
        },
        "turned.jpg": saved(Image.fromarray(noise(80, 50, 2)), "JPEG", exif=rotated),
        "alpha.png": saved(rgba, "PNG"),
        "see_through.png": saved(palette, "PNG", transparency=3),
        "deep.png": saved(deep, "PNG"),
        "bilevel.png": saved(Image.fromarray(noise(50, 60, 4)).convert("1"), "PNG"),
        "moving.gif": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "lossy.webp": saved(Image.fromarray(noise(66, 77, 6)), "WEBP"),
        "old.bmp": encode("BMP", 45, 61),
        "scan.tiff": encode("TIFF", 45, 61),
        "wide.jpg": encode("jpeg", 300, 33),
    }


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()
