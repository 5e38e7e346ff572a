"""A checkpoint is written while training goes on: it is the state of its step, and how it ended is learned at the next save."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from src.training.checkpoint import Checkpoints
from src.training.checkpoint_file import CheckpointError, load_file
from src.training.loop import fit
from src.training.resume import capture
from src.training.run import Run
from tests.training.conftest import differing

MakeRun = Callable[..., Any]
OVERRIDES = (
    "save_every_steps=2",
    "track.log_every_steps=1",
    "average=ema",
    "average.decay=0.5",
    "average.recalibrate_images=20",
    "epochs=2",
)
PATIENCE = 60  # seconds; a test that waits so long fails


@pytest.fixture
def writer() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield every tensor in nested containers."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors(item)


def step_of_newest(folder: Path) -> int:
    return int(load_file(folder / "last.ckpt")["step"])


def saving(run: Run, folder: Path, writer: ThreadPoolExecutor, before: Callable[[int], None]) -> Checkpoints:
    """Let the run save into a folder beside training, and do something before each write, in the thread that writes."""
    checkpoints = Checkpoints(folder)
    checkpoints.prepare()

    def write_checkpoint(run: Run) -> Callable[[], bool]:
        state = capture(run, config={}, classes=("a",))

        def write() -> bool:
            before(state["step"])
            return checkpoints.save(state, [], None)

        return writer.submit(write).result

    run.write_checkpoint = write_checkpoint
    return checkpoints


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "sf_adamw"])
def test_what_is_captured_shares_no_memory_with_what_is_trained_on(make_run: MakeRun, optimizer: str) -> None:
    average = ("average.recalibrate_images=20",) if optimizer == "sf_adamw" else OVERRIDES[2:5]
    run, twin = (make_run(f"optim={optimizer}", "epochs=2", *average) for _ in range(2))
    fit(run)
    fit(twin)
    state, now = capture(run, config={}, classes=("a",)), capture(twin, config={}, classes=("a",))
    live = [run.model.state_dict(), run.optimizer.state_dict(), run.average.state(), run.meter.__dict__]
    addresses = {tensor.untyped_storage().data_ptr() for tensor in tensors(live)}
    assert len(addresses) > 10
    assert not [tensor for tensor in tensors(state) if tensor.untyped_storage().data_ptr() in addresses]
    with torch.no_grad():
        for tensor in tensors(live):
            tensor.fill_(1)
    run.history.epochs.append({})
    assert differing(state, now) == []


def test_training_goes_on_while_a_checkpoint_is_written(make_run: MakeRun, tmp_path: Path, writer: ThreadPoolExecutor) -> None:
    run = make_run(*OVERRIDES)
    arrived = threading.Event()
    late: list[int] = []

    def before(step: int) -> None:
        if step == 2 and not arrived.wait(PATIENCE):
            late.append(step)

    saving(run, tmp_path, writer, before)
    real = run.lr_at

    def lr_at(step: int) -> float:
        if step == 3:
            arrived.set()
        return float(real(step))

    run.lr_at = lr_at
    fit(run)
    assert late == [], "step 3 was not trained before step 2 was written"
    assert step_of_newest(tmp_path) == run.total_steps


def test_every_written_state_is_the_one_of_its_step(make_run: MakeRun, tmp_path: Path, writer: ThreadPoolExecutor) -> None:
    whole, run = make_run(*OVERRIDES), make_run(*OVERRIDES)
    fit(whole)
    wanted = {(state["step"], len(state["history"])): state for state in whole.states}
    compared: list[list[str]] = []
    checkpoints = saving(run, tmp_path, writer, lambda step: None)
    real = checkpoints.save

    def save(state: Any, *arguments: Any) -> bool:
        done = real(state, *arguments)
        found = load_file(tmp_path / "last.ckpt")
        expected = wanted[state["step"], len(state["history"])]
        compared.append(differing({**expected, "config": {}, "classes": ["a"]}, found))
        return done

    checkpoints.save = save  # type: ignore[method-assign]
    fit(run)
    assert len(compared) == len(wanted) > 4
    assert compared == [[]] * len(compared)


def test_a_save_that_must_be_is_on_disk_when_it_returns(make_run: MakeRun, tmp_path: Path, writer: ThreadPoolExecutor) -> None:
    run = make_run(*OVERRIDES)
    let_go = threading.Event()
    saving(run, tmp_path, writer, lambda step: None if let_go.wait(PATIENCE) else pytest.fail("never let go"))
    run.save()
    assert not (tmp_path / "last.ckpt").exists()
    let_go.set()
    run.save(must=True)  # the same state: written once
    assert step_of_newest(tmp_path) == 0
    assert not (tmp_path / "previous.ckpt").exists()


def test_a_failed_write_is_learned_at_the_next_save_and_the_third_ends_the_run(
    make_run: MakeRun, tmp_path: Path, writer: ThreadPoolExecutor
) -> None:
    run = make_run(*OVERRIDES, "epochs=4")
    tried: list[int] = []
    register = tmp_path / "checkpoints.json"

    def before(step: int) -> None:
        tried.append(step)
        if step == 4 and not register.is_dir():
            register.unlink()
            register.mkdir()  # no file can be renamed onto it

    checkpoints = saving(run, tmp_path, writer, before)
    with pytest.raises(CheckpointError, match="3 checkpoints in a row could not be written"):
        fit(run)
    assert len(tried) >= 4
    assert step_of_newest(tmp_path) == 2
    assert [path.name for path in tmp_path.glob(".writing-*")] == []
    register.rmdir()
    assert checkpoints.find_newest() == tmp_path / "last.ckpt"


def test_a_last_state_that_cannot_be_written_is_an_error(make_run: MakeRun, tmp_path: Path, writer: ThreadPoolExecutor) -> None:
    run = make_run(*OVERRIDES)

    def before(step: int) -> None:
        if step == run.total_steps and run.history.last_step == step:
            raise OSError(28, "No space left on device")

    checkpoints = saving(run, tmp_path, writer, lambda step: None)
    real = checkpoints._save

    def _save(state: Any, *arguments: Any) -> None:
        before(state["step"])
        real(state, *arguments)

    checkpoints._save = _save  # type: ignore[method-assign]
    with pytest.raises(CheckpointError, match=f"the state of step {run.total_steps} could not be saved"):
        fit(run)
