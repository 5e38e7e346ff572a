"""Evaluation counts every image once, and says the same, on any number of ranks."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.conftest import TINY, Torchrun


@pytest.mark.parametrize(("optimizer", "worlds"), [pytest.param("sgd", (1, 2, 3, 5), marks=pytest.mark.long), ("sf_sgd", (1, 3))])
def test_identical_on_any_number_of_ranks(torchrun: Torchrun, tmp_path: Path, optimizer: str, worlds: tuple[int, ...]) -> None:
    # Two ranks train, so that the statistics to evaluate at are a mean over ranks; few enough steps to leave some images wrong.
    torchrun(
        2, "-m", "src.train", *TINY, "epochs=1", f"optim={optimizer}", f"runs_dir={tmp_path}", "run_name=r", "eval_batch_size=8"
    )
    rows = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    trained = next(row for row in rows if row["kind"] == "epoch")
    results: list[dict[str, Any]] = []
    for ranks in worlds:
        done = torchrun(ranks, "-m", "src.evaluate", f"checkpoint={tmp_path}/r/checkpoints/best.ckpt")
        results.append(json.loads(done.stdout.splitlines()[-1]))
    for result in results:
        assert result["images"] == 53
        assert 0 < result["val_acc1"] < 100
        assert result["val_acc1"] == results[0]["val_acc1"] == trained["val/acc1"]
        assert result["val_acc5"] == results[0]["val_acc5"] == trained["val/acc5"]
        assert result["val_loss"] == pytest.approx(results[0]["val_loss"], abs=1e-6)
        assert result["protocol"] == results[0]["protocol"]
    assert results[0]["protocol"]["weights"] == ("trained" if optimizer == "sgd" else "schedule_free")
