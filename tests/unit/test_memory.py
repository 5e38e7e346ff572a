"""What a training takes of memory is known before it begins, and when it was not enough the message names a command that works."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from src.build_model import build_live_model
from src.config import load
from src.distributed import World
from src.memory import Need, OutOfMemory, explained, gpu_problems, largest_part, need_of, room_problems
from src.probe import Probe
from src.session import Place
from src.training.precision import choose_precision

GIB = 2**30
CPU = torch.device("cpu")
ALONE = Place(World(0, 0, 1, 1, under_torchrun=False), CPU, Console())
SMALL = ("data=synthetic", "data.image_size=32", "data.stored_size=32", "data.num_train=650", "batch_size=96")


@pytest.mark.parametrize(
    "model",
    [
        ["model=small_resnet"],
        ["model=small_resnet", "model.gradient_checkpointing=true", "model.drop_path=0.1"],
        ["model=small_resnet", "model.blur_pool=convs", "channels_last=false"],
        ["model=resnet50"],
    ],
)
def test_the_estimate_is_what_autograd_keeps(model: list[str]) -> None:
    config = load([*SMALL, *model, "precision=fp32"])
    need = need_of(config, CPU, num_classes=10)
    live = build_live_model(config, choose_precision("fp32", CPU), CPU, num_classes=10)
    measured = Probe(config, ALONE, live, local_batch_size=2, num_classes=10).saved_bytes_an_image()
    assert need is not None
    assert need.an_image == pytest.approx(measured, rel=0.01)


def test_weights_gradients_optimizer_average_and_sam_are_counted() -> None:
    def fixed(*more: str) -> float:
        need = need_of(load([*SMALL, "model=small_resnet", *more]), CPU, num_classes=10)
        assert need is not None
        return need.fixed

    weights = fixed("optim=sgd") / 3  # weights, momentum, gradients
    assert fixed("optim=adamw") == 4 * weights
    assert fixed("optim=sam") == 4 * weights
    assert fixed("optim=adamw", "average=ema") == 6 * weights


def test_a_model_that_needs_numbers_is_not_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "branching.py").write_text(
        "from torch import nn\n\n\nclass Branching(nn.Linear):\n    def forward(self, x):\n"
        "        x = x.mean((2, 3))\n        return super().forward(x if x.sum().item() > 0 else -x)\n\n\n"
        "def build(num_classes):\n    return Branching(3, num_classes)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert need_of(load([*SMALL, "model=custom", "model.factory=branching:build"]), CPU, num_classes=10) is None


def problems(*overrides: str, free: float, ranks: int = 1, others: float = 0.0) -> list[str]:
    need = Need(fixed=2 * GIB, an_image=GIB / 10)
    sizes = {"free": int(free * GIB), "total": 24 * GIB, "others": int(others * GIB)}
    return [str(problem) for problem in room_problems(load([*SMALL, *overrides]), need, world_size=ranks, **sizes)]


def test_a_batch_that_fits_is_no_problem() -> None:
    assert problems(free=11.7) == []
    assert problems("max_local_batch_size=24", free=4.5) == []
    assert problems(free=6.9, ranks=2) == []


def test_one_that_does_not_is_told_with_the_largest_that_does() -> None:
    [told] = problems(free=11.5)
    assert told == (
        "max_local_batch_size: 96 images a micro-batch need at least 11.60 GiB on each GPU (2.00 GiB for weights and optimizer, "
        "102.4 MiB an image), and 11.50 GiB of 24.00 GiB are free. Set max_local_batch_size=48, or "
        "model.gradient_checkpointing=true."
    )
    assert problems("max_local_batch_size=48", free=11.5) == []
    [told] = problems("max_local_batch_size=48", free=5, ranks=2)
    assert told.startswith("max_local_batch_size = 48: 48 images")
    assert "Set max_local_batch_size=24," in told


def test_not_even_one_image() -> None:
    [told] = problems(free=2.05)
    assert "Not even one image fits: choose a smaller model" in told
    assert "Set max_local_batch_size" not in told


def test_other_processes_are_told_of() -> None:
    [told] = problems(free=5, others=18)
    assert "Other processes hold about 18.00 GiB (nvidia-smi names them)" in told
    assert "Other processes" not in problems(free=5, others=0.5)[0]


def test_a_cpu_is_not_asked() -> None:
    assert gpu_problems(load(SMALL), ALONE, num_classes=10) == []


@pytest.mark.parametrize(("most", "part"), [(96, 96), (95.9, 48), (31, 24), (1, 1), (0.9, None), (-3, None), (1e9, 96)])
def test_only_what_divides_is_advised(most: float, part: int | None) -> None:
    assert largest_part(96, most=most) == part


def evaluate_model(error: Exception) -> None:
    raise error


def raised(call: Any) -> Exception:
    try:
        call()
    except Exception as error:  # noqa: BLE001
        return error
    raise AssertionError


def cpu_runs_out() -> None:
    torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.parametrize("call", [cpu_runs_out, lambda: bytearray(2**60), lambda: evaluate_model(torch.OutOfMemoryError("CUDA"))])
def test_each_way_in_which_memory_runs_out_is_known(call: Any) -> None:
    told = explained(raised(call), load([*SMALL, "run_name=r"]), ALONE)
    assert isinstance(told, OutOfMemory)
    assert str(told).startswith("out of memory: up to ")


def test_the_advice_divides_and_names_the_run() -> None:
    told = str(explained(MemoryError(), load([*SMALL, "run_name=r"]), ALONE))
    assert "with 96 images a micro-batch, 1 a step. Start it again with max_local_batch_size=48 run_name=r: it goes on" in told
    assert "2 micro-batches of 48" in told
    told = str(explained(MemoryError(), load([*SMALL, "run_name=r", "max_local_batch_size=24"]), ALONE))
    assert "with 24 images a micro-batch, 4 a step. Start it again with max_local_batch_size=16 run_name=r" in told
    told = str(explained(MemoryError(), load([*SMALL, "max_local_batch_size=1"]), ALONE))
    assert "Choose a smaller model" in told


def test_an_evaluation_has_a_batch_of_its_own() -> None:
    error = raised(lambda: evaluate_model(MemoryError()))
    told = str(explained(error, load([*SMALL, "eval_batch_size=50", "run_name=r"]), ALONE))
    assert "It was evaluating. Start it again with eval_batch_size=25 run_name=r" in told


def test_another_error_stays_as_it_is() -> None:
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert explained(error, load(SMALL), ALONE) is error


def test_a_gpu_is_asked_for_what_is_free_and_what_torch_holds_of_it_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"mem_get_info": (1 * GIB, 48 * GIB), "memory_reserved": GIB // 2, "memory_allocated": GIB // 4}
    for name, answer in asked.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, answer=answer: answer)
    place = ALONE._replace(device=torch.device("cuda", 0))
    config = load([*SMALL, "data.image_size=224", "data.resize_size=256", "model=resnet50", "precision=bf16"])
    [told] = gpu_problems(config, place, num_classes=1000)
    assert "and 1.25 GiB of 48.00 GiB are free. Other processes hold about 46.50 GiB" in told.fix
    need = need_of(config, place.device, num_classes=1000)
    whole = need_of(load([*SMALL, "data.image_size=224", "data.resize_size=256", "model=resnet50"]), CPU, num_classes=1000)
    assert need is not None
    assert whole is not None
    assert 0.4 < need.an_image / whole.an_image < 0.6, "half as much in bf16"
