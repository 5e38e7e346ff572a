"""Between two logs the loop never waits for the device; and to evaluate or to save changes nothing that trains."""

import copy
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from src.training.checkpoint import Checkpoints
from src.training.checkpoint_file import load_file
from src.training.loop import train_step
from src.training.resume import capture
from src.training.run import Run
from tests.everything import EVERYTHING

MakeRun = Callable[..., Any]
WAITING_METHODS = ("item", "cpu", "numpy", "tolist", "nonzero", "__float__", "__int__", "__bool__", "__index__", "__array__")
STEPS, LOG_EVERY = 10, 4
VARIANTS = {
    "sgd": ["optim=sgd"],
    "sgd clipped, smoothed": ["optim=sgd", "max_grad_norm=1.0", "label_smoothing=0.1"],
    "adamw accumulated": ["optim=adamw", "max_local_batch_size=16"],
    "sf_sgd": ["optim=sf_sgd", "average.recalibrate_images=64"],
    "sf_adamw in bf16": ["optim=sf_adamw", "precision=bf16", "average.recalibrate_images=64"],
    "fused fp16": ["optim=sgd", "precision=fp16", "max_grad_norm=1.0"],
    "sam": ["optim=sam"],
    "lars": ["optim=lars"],
    "lamb": ["optim=lamb"],
    "sgdw": ["optim=sgdw"],
    "rmsprop": ["optim=rmsprop"],
    "ema in fp16": ["average=ema", "average.recalibrate_images=64", "precision=fp16"],
    "swa": ["average=swa", "average.recalibrate_images=64", "average.swa_start_epoch=0", "average.swa_every_steps=2"],
    "everything": [*EVERYTHING, "average.swa_start_epoch=0", "average.swa_every_steps=2"],
    "other operations": ["augment.operations=trivial_augment_wide", "augment.mixup_alpha=0.2", "augment.erase_probability=0.5"],
    "timm's operations": ["augment.operations=rand_augment_timm", "augment.magnitude=7", "augment.magnitude_std=0.5"],
}
each_variant = pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)


class Waits(TorchDispatchMode):
    """Counts what would wait for a device in this thread: torch's own operations, and the tensor's methods.

    timm's LAMB counts its steps in a tensor that lies on the host wherever the weights are: to read that waits for nothing.
    """

    def __init__(self, patch: pytest.MonkeyPatch, run: Run) -> None:
        super().__init__()
        self.seen: list[str] = []
        self._groups = run.optimizer.param_groups
        self._thread = threading.get_ident()
        for name in WAITING_METHODS:
            patch.setattr(Tensor, name, self._counted(name, getattr(Tensor, name)))

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default) and not self._on_host(args[0]):
            self.seen.append(str(function))
        return function(*args, **(kwargs or {}))

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == self._thread and not self._on_host(args[0]):
                self.seen.append(name)
            return real(*args, **kwargs)

        return call

    def _on_host(self, tensor: Tensor) -> bool:
        return any(tensor is group.get("step") for group in self._groups)


def train(run: Run, batches: Iterator[Any]) -> None:
    """Do what train_epoch does for one step."""
    train_step(run, batches)
    run.step += 1
    run.stop_requested()
    run.after_step(stopping=False)


@each_variant
def test_nothing_waits_for_the_device_between_logs(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    run = make_run(f"track.log_every_steps={LOG_EVERY}", *overrides)
    for _ in run.epoch_batches():  # what the engine does on the CPU is no wait for the device
        pass
    run.augment(run.recorder.seen[0], step=0, slot=0)  # tables of magnitudes are made once for an image size, on the host
    batches, waits = iter(run.recorder.seen), {}
    with monkeypatch.context() as patch, Waits(patch, run) as counter:
        for step in range(1, STEPS + 1):
            train(run, batches)
            waits[step], counter.seen = counter.seen, []
    logged = {4, 8, 10}
    assert all(waits[step] for step in logged), "the counter does not see the log's own waits"
    assert {step: seen for step, seen in waits.items() if step not in logged and seen} == {}
    assert max(map(len, waits.values())) <= 8, "a log reads a handful of numbers"


def test_no_step_seeds_every_kind_of_device(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.manual_seed asks CUDA, MPS and XPU each time: half a millisecond a step."""
    run = make_run("max_local_batch_size=16")

    def refuse(seed: int) -> None:
        raise AssertionError("torch.manual_seed is called in the loop")

    monkeypatch.setattr(torch, "manual_seed", refuse)
    monkeypatch.setattr(torch.random, "manual_seed", refuse)
    batches = run.epoch_batches()
    for _ in range(STEPS):
        train(run, batches)


def test_every_slot_of_every_step_has_its_own_seed(make_run: MakeRun) -> None:
    run = make_run("max_local_batch_size=16")
    draws = []
    for _ in range(2):
        for step in range(3):
            run.step = step
            for micro_batch in range(2):
                run.seed_slot(micro_batch)
                draws.append(float(torch.rand(())))
    assert draws[:6] == draws[6:]
    assert len(set(draws)) == 6


def state_of(run: Run) -> dict[str, Any]:
    """Copy everything that training goes on from."""
    return copy.deepcopy(
        {
            "model": dict(run.model.state_dict()),
            "training": [module.training for module in run.model.modules()],
            "gradients": [parameter.grad for parameter in run.model.parameters()],
            "optimizer": run.optimizer.state_dict(),
            "scaler": run.scaler.state_dict(),
            "skipped": run.skipped.state(),
            "meter": run.meter.state(),
            "step": run.step,
        }
    )


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, f"{path}.{key}")
    else:
        yield path, value


def assert_same(left: Any, right: Any) -> None:
    ours, theirs = dict(leaves(left)), dict(leaves(right))
    assert ours.keys() == theirs.keys()
    for path, value in ours.items():
        assert torch.equal(value, theirs[path]) if isinstance(value, Tensor) else value == theirs[path], path


@each_variant
def test_to_evaluate_and_to_save_change_nothing_that_trains(make_run: MakeRun, tmp_path: Path, overrides: list[str]) -> None:
    disturbed, undisturbed = make_run(*overrides), make_run(*overrides)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.prepare()
    batches = [run.epoch_batches() for run in (disturbed, undisturbed)]
    for _ in range(3):
        for run, its in zip((disturbed, undisturbed), batches, strict=True):
            train(run, its)
        before = state_of(disturbed)
        result = disturbed.evaluate()
        assert result.images == 50
        assert_same(state_of(disturbed), before)
        checkpoints.save(capture(disturbed, config={}, classes=("a",)), [], None)
        assert_same(state_of(disturbed), before)
    assert_same(state_of(disturbed), state_of(undisturbed))
    stored = load_file(checkpoints.folder / "last.ckpt")
    assert_same(stored["model"], dict(disturbed.model.state_dict()))
    assert_same(stored["optimizer"], disturbed.optimizer.state_dict())


def test_a_checkpoint_has_the_bare_models_names(make_run: MakeRun) -> None:
    plain = make_run()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        run = make_run("compile=true")
        names = list(run.parallel.state_dict())
        assert all(name.startswith("module._orig_mod.") for name in names), "the model is not wrapped as the test wants it"
        state = capture(run, config={}, classes=("a",))
    finally:
        dist.destroy_process_group()
    assert list(state["model"]) == list(plain.model.state_dict())
    assert not [path for path, _ in leaves(state) if "module." in path or "_orig_mod" in path]
