"""A trace of a few steps: written, readable, small, and only where it was asked for."""

import json
from pathlib import Path

import torch

from src.training.profiling import profiling


def work(folder: Path, *, steps: int, trained: int) -> None:
    with profiling(steps, folder) as after_each_step:
        for _ in range(trained):
            torch.ones(8, 8) @ torch.ones(8, 8)
            after_each_step()


def test_the_trace_holds_the_steps_and_the_table_their_operations(tmp_path: Path, said: list[str]) -> None:
    folder = tmp_path / "run" / "profile"
    work(folder, steps=2, trained=12)
    trace = json.loads((folder / "trace.json").read_text())
    names = [event.get("name", "") for event in trace["traceEvents"]]
    assert sum(name == "aten::mm" for name in names) == 2
    assert sum(name.startswith("ProfilerStep#") for name in names) >= 2
    assert (folder / "trace.json").stat().st_size < 1_000_000
    assert "aten::mm" in (folder / "operations.txt").read_text()
    assert any(f"profile of 2 steps in {folder}" in line for line in said)


def test_a_run_that_ends_before_leaves_nothing_and_does_not_fail(tmp_path: Path) -> None:
    work(tmp_path / "profile", steps=2, trained=2)
    assert not (tmp_path / "profile").exists()


def test_no_steps_no_profile(tmp_path: Path) -> None:
    work(tmp_path / "profile", steps=0, trained=12)
    assert not (tmp_path / "profile").exists()
