"""Two ranks, each with accumulation 2, or one rank with accumulation 2, or one large batch: one training."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from src.training.checkpoint_file import load_file
from tests.distributed.conftest import TINY, Torchrun

NO_NORM = ("model=custom", "model.factory=tests.distributed.test_accumulation:without_norms", "precision=fp64")


def without_norms(*, num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.GELU(), nn.Conv2d(8, 8, 3, stride=2), nn.GELU(), nn.Flatten(), nn.Linear(72, num_classes)
    )


@pytest.mark.parametrize(
    "optimizer",
    [
        "sgd",
        pytest.param("adamw", marks=pytest.mark.long),
        pytest.param("sam", marks=pytest.mark.long),
        pytest.param("lamb", marks=pytest.mark.long),
    ],
)
def test_accumulation_equals_ranks(torchrun: Torchrun, tmp_path: Path, optimizer: str) -> None:
    data_and_rest = [item for item in TINY if not item.startswith("model")]
    trained: dict[str, dict[str, Tensor]] = {}
    for name, ranks, cap in (("whole", 1, "null"), ("accumulated", 1, "16"), ("both", 2, "8")):
        more = (
            f"optim={optimizer}",
            f"runs_dir={tmp_path}",
            f"run_name={name}",
            f"max_local_batch_size={cap}",
            "max_grad_norm=0.5",
        )
        torchrun(ranks, "-m", "src.train", *data_and_rest, *NO_NORM, *more)
        trained[name] = load_file(tmp_path / name / "checkpoints" / "last.ckpt")["model"]
    for name in ("accumulated", "both"):
        for key, wanted in trained["whole"].items():
            assert wanted.dtype == torch.float64
            assert torch.max(torch.abs(trained[name][key] - wanted)).item() < 1e-10, (name, key)
