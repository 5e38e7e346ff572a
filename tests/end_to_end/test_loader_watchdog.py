"""A disk that does not answer one rank any more: that rank says which images, ends, and the run goes on."""

from pathlib import Path

import pytest

from tests.end_to_end.disturbed import Disturbed, undisturbed

pytestmark = pytest.mark.long


def test_a_read_that_never_ends_costs_a_restart_and_nothing_else(tmp_path: Path) -> None:
    settings = ("timeout_seconds=15",)
    whole = undisturbed(tmp_path, ranks=2, settings=settings)
    run = Disturbed(tmp_path, "hurt", ranks=2, launcher=("--max-restarts=1",), settings=settings)
    code, said = run.run(run.fault("hang", at="read", rank=1, step=400))
    assert code == 0, said[-3000:]
    assert "a batch has not arrived for 10 seconds: its 16 images are synthetic" in said, said[-3000:]
    assert run.differences(whole) == []
