"""A rank dies, fails or hangs: torchrun starts all of them again, and the run ends as if nothing had been."""

import json
from pathlib import Path

import pytest

from tests.end_to_end.disturbed import Disturbed, undisturbed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # torchrun gives a rank that hangs half a minute to end


def test_a_rank_that_dies_costs_nothing_but_time(tmp_path: Path) -> None:
    whole = undisturbed(tmp_path, ranks=2)
    run = Disturbed(tmp_path, "hurt", ranks=2, launcher=("--max-restarts=2",))
    code, said = run.run(run.fault("kill", rank=1, step=5), run.fault("raise", rank=1, at="evaluation", step=20))
    assert code == 0, said[-3000:]
    assert said.count("RuntimeError: injected fault") >= 1
    assert run.differences(whole) == []


@pytest.mark.long
def test_ranks_that_die_or_hang_in_every_way_cost_nothing_but_time(tmp_path: Path) -> None:
    settings = ("timeout_seconds=10",)
    whole = undisturbed(tmp_path, ranks=2, settings=settings)
    run = Disturbed(tmp_path, "hurt", ranks=2, launcher=("--max-restarts=8",), settings=settings)
    code, said = run.run(
        run.fault("kill", rank=1, step=5),
        run.fault("kill", rank=0, at="save", step=12),
        run.fault("raise", rank=1, at="evaluation", step=20),
        run.fault("hang", rank=1, step=26),
        run.fault("exit", rank=0, at="epoch_end", step=40),
    )
    assert code == 0, said[-3000:]
    assert "another rank is gone or silent" in said
    assert said.count("RuntimeError: injected fault") >= 1  # the traceback of the rank that failed
    assert run.differences(whole) == []


def test_torchruns_report_names_the_cause(tmp_path: Path) -> None:
    run = Disturbed(tmp_path, "r", ranks=2)
    code, said = run.run(run.fault("raise", rank=1, step=3))
    assert code == 1
    report = said[said.index("Root Cause") :]
    assert "rank      : 1" in report and "RuntimeError: injected fault" in report and "in train_epoch" in report
    status = json.loads((run.folder / "status.json").read_text())
    assert status["status"] == "failed" and "another rank is gone" in status["error"]
    assert said.count("Traceback (most recent call last)") <= 3  # the cause: logged once, and in torchrun's report; torchrun's own
