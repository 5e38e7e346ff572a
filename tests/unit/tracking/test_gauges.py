"""What the machine tells beside a run: FLOPs that are right and cost nothing, peaks that are known or not; no failure stops."""

import copy
import resource
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torchvision
from loguru import logger
from torch import Tensor, nn

from src.config import load
from src.models.build import build_model
from src.tracking import gauges as gauges_module
from src.tracking.flops import forward_flops, forwards_a_step
from src.tracking.gauges import Compute, Gauges, build_gauges, peak_host_bytes
from src.tracking.machine_figures import repeatable
from src.tracking.peaks import peak_flops

SMALL = ("data=synthetic", "model=small_resnet", "model.width=4")


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What was warned of."""
    messages: list[str] = []
    number = logger.add(lambda message: messages.append(message.record["message"]), level="WARNING")
    yield messages
    logger.remove(number)


def gauges_of(model: nn.Module, **more: Any) -> Gauges:
    settings: dict[str, Any] = {"precision": "fp32", "world_size": 1, "gradient_checkpointing": False, "sam_every_steps": None}
    settings |= {"image_sizes": [16], "image_size": lambda: 16, "device": torch.device("cpu")}
    return build_gauges(model=model, **(settings | more))


@pytest.mark.parametrize(("arch", "multiply_adds"), [("resnet18", 1.814e9), ("vit_b_16", 17.56e9)])
def test_flops_are_two_for_each_of_the_published_multiply_adds(arch: str, multiply_adds: float) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(arch)
    assert forward_flops(model, 224) == pytest.approx(2 * multiply_adds, rel=2e-3)


def test_flops_of_a_layer_by_hand() -> None:
    """3 x 3 convolution to 5 channels at 8 x 8, and a matrix product of 5 by 7."""
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7))
    assert forward_flops(model, 8) == 2 * (8 * 8 * 5 * 3 * 9 + 5 * 7)


class Asks(nn.Module):
    """Looks at a value on its way, which a tensor without values cannot answer, and draws."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 2)

    def forward(self, images: Tensor) -> Tensor:
        shift = float(torch.rand(()))
        return self.layer(images.flatten(1) + (shift if float(images.sum()) > 0 else 0.0))


@pytest.mark.parametrize("name", ["small_resnet", "asks"])
def test_counting_leaves_the_model_and_every_generator_as_they_were(name: str) -> None:
    checkpointed = ("model.gradient_checkpointing=true", "model.drop_path=0.5")
    model = Asks() if name == "asks" else build_model(load([*SMALL, *checkpointed]).model, num_classes=10)
    model.train()
    before, versions = copy.deepcopy(model.state_dict()), [tensor._version for tensor in model.state_dict().values()]
    places = [tensor.data_ptr() for tensor in model.state_dict().values()]
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    assert forward_flops(model, 2 if name == "asks" else 16) > 0
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert [tensor._version for tensor in model.state_dict().values()] == versions
    assert [tensor.data_ptr() for tensor in model.state_dict().values()] == places
    assert [module.training for module in model.modules()] == modes and torch.equal(torch.get_rng_state(), state)
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_counting_copies_no_weights() -> None:
    """Four TB of them would not fit."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))
    huge = nn.Parameter(torch.empty(1).expand(2**40))
    model.register_parameter("huge", huge)
    assert forward_flops(model, 8) == 2 * 3 * 10


@pytest.mark.parametrize(
    ("checkpointing", "sam_every", "forwards"),
    [(False, None, 3), (True, None, 4), (False, 1, 6), (False, 5, 3.6), (True, 2, 6)],
)
def test_what_a_training_step_costs(checkpointing: bool, sam_every: int | None, forwards: float) -> None:
    assert forwards_a_step(gradient_checkpointing=checkpointing, sam_every_steps=sam_every) == pytest.approx(forwards)


@pytest.mark.parametrize(
    ("name", "precision", "teraflops"),
    [
        ("NVIDIA H200", "bf16", 989.5),
        ("NVIDIA H200 NVL", "bf16", 835.5),
        ("NVIDIA H100 80GB HBM3", "fp32", 494.5),
        ("NVIDIA H100 PCIe", "fp16", 756.5),
        ("NVIDIA A100-SXM4-40GB", "bf16", 312),
        ("NVIDIA A100 80GB PCIe", "fp32", 156),
        ("NVIDIA A40", "bf16", 149.7),
        ("NVIDIA A10", "bf16", 125),
        ("NVIDIA A10G", "bf16", 70),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA L40", "bf16", 181.05),
        ("NVIDIA L40S", "bf16", 362.05),
        ("Tesla T4", "fp16", 65),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("NVIDIA GeForce RTX 3090", "bf16", 71),
        # Not known, or not the whole of a GPU: no figure rather than a wrong one.
        ("Tesla T4", "bf16", None),
        ("NVIDIA GeForce RTX 3090 Ti", "bf16", None),
        ("NVIDIA GeForce RTX 4090 D", "bf16", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16", None),
        ("NVIDIA H200", "fp64", None),
        ("NVIDIA T400", "fp16", None),
        ("Quadro GV100", "fp16", None),
        ("", "bf16", None),
    ],
)
def test_the_peak_of_a_device(name: str, precision: Any, teraflops: float | None) -> None:
    peak = peak_flops(name, precision)
    assert peak is None if teraflops is None else peak == pytest.approx(teraflops * 1e12)


def test_mfu_is_what_was_achieved_of_all_devices_at_the_size_of_the_window() -> None:
    size = 16
    compute = Compute({16: 3e9, 32: 12e9}, lambda: size, peak=2 * 312e12)
    assert compute(1000.0) == {"time/tflops_per_second": 3.0, "time/mfu": pytest.approx(3 / 624)}
    size = 32
    assert compute(1000.0)["time/tflops_per_second"] == 12.0
    assert set(Compute({32: 1e9}, lambda: 32, peak=None)(10.0)) == {"time/tflops_per_second"}


def test_a_cpu_tells_flops_and_memory_in_plain_floats() -> None:
    model = build_model(load([*SMALL]).model, num_classes=10)
    values = gauges_of(model, gradient_checkpointing=True)(100.0)
    assert set(values) == {"time/tflops_per_second", "memory/peak_host_gib"} and {type(value) for value in values.values()} == {
        float
    }
    assert values["time/tflops_per_second"] == pytest.approx(100 * 4 * forward_flops(model, 16) / 1e12)
    assert not repeatable(values), "what the machine measures is left out of comparisons"


def test_the_hosts_memory_is_the_peak_in_bytes() -> None:
    held = torch.ones(64 * 2**20, dtype=torch.uint8)
    peak = peak_host_bytes()
    del held
    assert peak == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, rel=0.02)
    assert peak_host_bytes() > 0.99 * peak, "a peak does not fall (the kernel counts pages in lots)"


def test_a_gauge_that_fails_is_told_of_once_and_the_others_go_on(told: list[str]) -> None:
    def broken(rate: float) -> dict[str, float]:
        raise RuntimeError("GPU is lost")

    both = Gauges({"the GPU's state": broken, "memory": lambda rate: {"a": rate, "b": float("nan"), "c": float("inf")}})
    for _ in range(3):
        assert both(2.0) == {"a": 2.0}, "what is no number is left out"
    assert len(told) == 1 and "the GPU's state" in told[0] and "GPU is lost" in told[0]


def test_a_model_that_cannot_be_counted_costs_one_warning(told: list[str]) -> None:
    gauges = gauges_of(nn.Sequential(nn.Flatten(), nn.Linear(5, 2)))
    assert set(gauges(1.0)) == {"memory/peak_host_gib"} == set(gauges(1.0))
    assert len(told) == 1 and "FLOP/s are left out" in told[0]


def test_progressive_sizes_are_counted_once_each_and_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(gauges_module, "forward_flops", lambda model, size: asked.append(size) or float(size))
    gauges = gauges_of(nn.Identity(), image_sizes=[16, 16, 32, 32, 16], image_size=lambda: 32)
    assert sorted(asked) == [16, 32]
    for _ in range(3):
        assert gauges(1e12)["time/tflops_per_second"] == 3 * 32
    assert len(asked) == 2
