"""debug=profile on a real run: a trace that opens, the operations, a true verdict, and a run that is as it would be without."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from src.training.loop import train_epoch, train_step
from src.training.profiling import fitted, profiling
from tests.training.conftest import slow_down

MakeRun = Callable[..., Any]
PARTS = ("train_batches", "augment", "criterion", "measure", "write_checkpoint")
WIDE = ("model.width=32", "data.num_train=640")


def profiled(run: Any, folder: Path, *, steps: int = 3) -> dict[str, Any]:
    """Train an epoch with a profile, as train_run.py does, and return the summary."""
    with profiling(steps, folder) as profile, run.clock.running():
        run.after_each_step = profile.after_step
        profile.watch(run)
        train_epoch(run)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def test_the_trace_opens_and_names_what_a_step_does(make_run: MakeRun, tmp_path: Path, said: list[str]) -> None:
    folder = tmp_path / "run" / "profile"
    summary = profiled(make_run(*WIDE), folder)
    events = json.loads(gzip.decompress((folder / "trace.json.gz").read_bytes()))["traceEvents"]
    names = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    assert [names.count(name) for name in ("data", "augment", "forward", "loss", "backward", "optimizer")] == [3] * 6
    inside = [event for event in events if event["name"] == "aten::convolution_backward"]
    ranges = [event for event in events if event["name"] == "backward"]
    assert inside
    for event in inside:
        assert any(each["ts"] <= event["ts"] <= each["ts"] + each["dur"] for each in ranges)
    assert "aten::convolution_backward" in (folder / "operations.txt").read_text()
    assert summary["steps"] == 3
    assert sum(summary["ranks"][0][name] for name in ("compute", "data", "communication", "host")) == pytest.approx(1, abs=1e-4)
    assert any(line.startswith(f"INFO profile of 3 steps in {folder}") for line in said)
    assert sorted(path.name for path in folder.iterdir()) == ["operations.txt", "summary.json", "trace.json.gz"]


def test_an_ordinary_run_on_a_cpu_is_bound_by_compute(make_run: MakeRun, tmp_path: Path, said: list[str]) -> None:
    run = make_run(*WIDE)
    for _ in run.epoch_batches():  # made beforehand: on a busy machine threads that load may be late
        pass
    run.train_batches = lambda epoch, first_step: iter(run.recorder.seen)
    summary = profiled(run, tmp_path / "profile")
    shares = summary["ranks"][0]
    assert shares["compute"] > max(shares["data"], shares["communication"])
    assert summary["bound_by"] in ("compute", "host"), "on a busy machine the host's own share grows"
    assert any(line.startswith(f"INFO bound by {summary['bound_by']}: of a step of") for line in said)


def test_a_slow_source_is_found_out(make_run: MakeRun, tmp_path: Path, said: list[str]) -> None:
    run = make_run()
    slow_down(run, 0.15)
    summary = profiled(run, tmp_path / "profile")
    assert summary["bound_by"] == "data", summary
    assert summary["ranks"][0]["data"] > 0.5
    assert summary["ranks"][0]["step_seconds"] > 0.15
    assert "data.engine" in summary["advice"]
    assert any("bound by data" in line and "data.engine" in line for line in said)


def test_nothing_that_trains_is_changed_and_the_run_gets_its_parts_back(make_run: MakeRun, tmp_path: Path) -> None:
    plain, watched = make_run("optim=sam", "max_local_batch_size=16"), make_run("optim=sam", "max_local_batch_size=16")
    before = {name: getattr(watched, name) for name in PARTS}
    profiled(watched, tmp_path / "profile")
    with plain.clock.running():
        train_epoch(plain)
    states = [run.model.state_dict() for run in (plain, watched)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert {name: getattr(watched, name) for name in PARTS} == before
    assert not watched.optimizer._optimizer_step_pre_hooks and not watched.optimizer._optimizer_step_post_hooks


@pytest.mark.parametrize("left", [2, 3, 7])
def test_a_short_run_is_profiled_as_far_as_it_goes(make_run: MakeRun, tmp_path: Path, left: int) -> None:
    run = make_run("epochs=1", *WIDE)
    run.step = run.total_steps - left
    summary = profiled(run, tmp_path / "profile", steps=10)
    assert summary["steps"] == fitted(10, left)[2] == max(1, left - 2)
    assert sum(summary["ranks"][0][name] for name in ("compute", "data", "communication", "host")) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("steps", "left", "expected"), [(10, 15, (3, 2, 10)), (10, 14, (2, 2, 10)), (10, 12, (0, 2, 10)), (10, 2, (0, 1, 1))]
)
def test_what_is_left_out_gives_way_before_what_is_recorded(steps: int, left: int, expected: tuple[int, int, int]) -> None:
    assert fitted(steps, left) == expected
    assert sum(expected) <= left


def test_one_step_is_too_few_and_says_so(make_run: MakeRun, tmp_path: Path, said: list[str]) -> None:
    run = make_run("epochs=1")
    run.step = run.total_steps - 1
    with profiling(2, tmp_path / "profile") as profile, run.clock.running():
        profile.watch(run)
        train_epoch(run)
    assert not (tmp_path / "profile").exists()
    assert any("no profile: 1 steps are left" in line for line in said)


def test_a_run_that_is_broken_off_says_so_and_leaves_nothing(make_run: MakeRun, tmp_path: Path, said: list[str]) -> None:
    run = make_run()
    before = {name: getattr(run, name) for name in PARTS}
    with profiling(2, tmp_path / "profile") as profile:
        profile.watch(run)
        batches = run.epoch_batches()
        for _ in range(6):  # in the middle of what is recorded
            train_step(run, batches)
            profile.after_step()
    assert not (tmp_path / "profile").exists()
    assert any("no profile: training ended before" in line for line in said)
    assert {name: getattr(run, name) for name in PARTS} == before


def test_a_disk_that_refuses_the_profile_ends_nothing(make_run: MakeRun, tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "profile").write_text("a file where a folder should be")
    run = make_run(*WIDE)
    with profiling(2, tmp_path / "profile") as profile, run.clock.running():
        run.after_each_step = profile.after_step
        profile.watch(run)
        train_epoch(run)
    assert run.step == run.arithmetic.steps_per_epoch
    assert any("cannot be written" in line for line in said) and any(line.startswith("INFO bound by") for line in said)


def test_no_steps_no_profile(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    before = {name: getattr(run, name) for name in PARTS}
    with profiling(0, tmp_path / "profile") as profile:
        profile.watch(run)
        profile.after_step()
        assert {name: getattr(run, name) for name in PARTS} == before
    assert not (tmp_path / "profile").exists()
