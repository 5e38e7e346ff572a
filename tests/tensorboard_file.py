"""Read back what stands in a run's event files, as TensorBoard does."""

from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.tracked_training import Training, told_once


def read_back(run: Path) -> Any:
    """Return TensorBoard's own reading of a run, all of it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    return accumulator.Reload()


def scalars(run: Path) -> dict[int, dict[str, float]]:
    """Return what was read back by step and key; none may come twice, or go back in time."""
    accumulator, steps = read_back(run), dict[int, dict[str, float]]()
    for tag in accumulator.Tags()["scalars"]:
        events = accumulator.Scalars(tag)
        assert [event.step for event in events] == sorted({event.step for event in events}), f"{tag}: each step once, in order"
        assert [event.wall_time for event in events] == sorted(event.wall_time for event in events), tag
        for event in events:
            steps.setdefault(event.step, {})[tag] = event.value
    return steps


def assert_is_metrics_jsonl(training: Training) -> None:
    wanted, found = told_once(training.rows()), scalars(training.folder)
    assert found.keys() == wanted.keys()
    for step, values in wanted.items():
        assert found[step].keys() == values.keys(), step
        assert all(found[step][key] == pytest.approx(value, rel=1e-6) for key, value in values.items()), "float32 of ours"
    assert len(wanted) == 40 and {"train/loss", "train/lr", "val/acc1", "time/tflops_per_second"} <= wanted[20].keys()
