"""Models for the tests of this folder, and a few steps of training them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.config.model import ModelConfig, SmallResNet, TimmModel, TorchvisionModel
from src.models.build import build_model

AS_IT_IS: dict[str, Any] = {
    "blur_pool": "none",
    "zero_init_residual": None,
    "prior_bias": False,
    "drop_path": None,
    "gradient_checkpointing": False,
    "weights": None,
}


def model_config(name: str, **changes: Any) -> ModelConfig:
    """Read `small_resnet`, `timm/resnet50` or torchvision's `resnet50`."""
    keys = AS_IT_IS | changes
    if name == "small_resnet":
        return SmallResNet(name="small_resnet", **({"depth": 14, "width": 16, "stem_stride": 1} | keys))
    library, _, arch = name.rpartition("/")
    if library == "timm":
        return TimmModel(name="timm", arch=arch, **keys)
    return TorchvisionModel(name="torchvision", arch=arch, **keys)


def made(name: str, *, num_classes: int = 5, seed: int = 0, **changes: Any) -> nn.Module:
    """Build the model from a seed."""
    torch.manual_seed(seed)
    return build_model(model_config(name, **changes), num_classes=num_classes)


def train(model: nn.Module, *, size: int, steps: int, autocast: bool = False, batch_size: int = 4) -> dict[str, Tensor]:
    """Take some steps of SGD, each seeded as the loop does, and return every weight and buffer."""
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.05, momentum=0.9)
    data = torch.Generator().manual_seed(1)
    for step in range(steps):
        images, labels = torch.randn(batch_size, 3, size, size, generator=data), torch.randint(5, (batch_size,), generator=data)
        torch.manual_seed(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


def unequal(left: dict[str, Tensor], right: dict[str, Tensor]) -> list[str]:
    """Return the names that differ in a bit, or are in one only."""
    return sorted(
        name
        for name in left.keys() | right.keys()
        if name not in left or name not in right or not torch.equal(left[name], right[name])
    )
