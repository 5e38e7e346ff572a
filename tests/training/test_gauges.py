"""Measuring the machine leaves no trace in a run: the same bits with and without."""

from typing import Any

from src.batch import Record
from src.tracking.gauges import build_gauges
from src.tracking.machine_figures import repeatable
from src.training.loop import fit
from tests.training.conftest import differing


class Rows:
    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def log(self, record: Record) -> None:
        self.rows.append({"step": record.step, "epoch": record.epoch, **record.values})

    def advance(self, step: int) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_run_with_and_without_gauges_is_the_same_bit_for_bit(make_run: Any) -> None:
    settings = ("optim=sam", "epochs=3", "track.log_every_steps=3", "model.drop_path=0.3", "model.gradient_checkpointing=true")
    ends, rows = [], []
    for measured in (False, True):
        run = make_run(*settings, "data.ramp_from_size=8", "data.ramp_to_epoch=2", "data.ramp_multiple=8")
        run.trackers.append(Rows())
        if measured:
            run.gauges = build_gauges(
                model=run.model,
                device=run.device,
                precision="fp32",
                world_size=1,
                gradient_checkpointing=True,
                sam_every_steps=1,
                image_sizes=[8, 16],
                image_size=lambda run=run: run.image_size_at((run.step - 1) // run.arithmetic.steps_per_epoch),
            )
        fit(run)
        ends.append(run.states[-1])
        rows.append(run.trackers[0].rows)
    assert not differing(*ends)
    assert [repeatable(row) for row in rows[0]] == [repeatable(row) for row in rows[1]]
    told = [row for row in rows[1] if "train/lr" in row]
    sizes = {row["data/image_size"] for row in told}
    assert sizes == {8, 16} and all(row["time/tflops_per_second"] > 0 for row in told)
    cost = {row["data/image_size"]: row["time/tflops_per_second"] / row["time/images_per_second"] for row in told}
    assert 2 < cost[16] / cost[8] < 4.5, "each window counts at its own image size"
