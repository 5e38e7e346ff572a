"""Runs' folders with untrained models, to export: a checkpoint, and what a run tells about itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from src.build_model import build_live_model
from src.config import Config, load
from src.training.checkpoint_file import SCHEMA
from src.training.precision import choose_precision

CPU = torch.device("cpu")
SECRET = "hf_5ec2e75ec2e75ec2e75ec2e7"
IMAGES = (
    "data=synthetic",
    "data.num_train=330",
    "data.num_val=130",
    "data.stored_size=20",
    "data.image_size=16",
    "data.resize_size=18",
)
SMALL = (*IMAGES, "model=small_resnet", "model.width=4")
CLASSES = tuple(f"class_{label}" for label in range(10))  # the synthetic ones


def write_run(folder: Path, *settings: str, average: str | None = None) -> Path:
    """Write a run's folder with its best checkpoint; of an average, the averaged weights differ from the trained ones."""
    config = load([*settings, f"run_name={folder.name}"])
    model = model_of(config)
    protocol = {"split": "val", "images": 130, "weights": average or "trained", "engine": "torchvision"}
    figures = {"val/loss": 2.25, "val/acc1": 12.5, "val/acc5": 62.5, "images": 130, "protocol": protocol}
    state = {
        "schema": SCHEMA,
        "step": 7,
        "config": config.model_dump(mode="json"),
        "classes": list(CLASSES[: getattr(config.data, "num_classes", 10)]),
        "model": model.state_dict(),
        "evaluation": None if average is None else {name: 0.5 * tensor for name, tensor in model.state_dict().items()},
        "history": [{"step": 7, "epoch": 0, **figures}],
    }
    path = folder / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    meta: dict[str, Any] = {
        "git_commit": "0123456789abcdef",
        "git_dirty": False,
        "python": "3.11.7",
        "packages": {"torch": "2.15.0"},
        "device": "cpu",
        "world_size": 1,
        "command": ["python", "-m", "src.train", f"hf_token={SECRET}", f"run_name={folder.name}"],
        "environment": {"OMP_NUM_THREADS": "1"},
        "started": 1795306474.0,
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def model_of(config: Config) -> nn.Module:
    """Build a model whose norms have seen images, so that BatchNorm counts."""
    model = build_live_model(config, choose_precision("fp32", CPU), CPU, num_classes=getattr(config.data, "num_classes", 10))
    size = config.data.eval_image_size
    with torch.no_grad():
        for _ in range(2):
            model.train()(torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0)))
    return model.eval()


Exports = Callable[..., dict[str, Any]]
