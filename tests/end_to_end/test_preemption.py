"""Asked to stop, by any signal, to any process, at any moment: no step is lost, and the same command ends as if nothing had been.

One run is stopped once at each moment, one start after the other. All combinations: preemption_matrix.py.
"""

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.end_to_end.disturbed import Disturbed, undisturbed, wait_until

SAID = "asked to stop: saved at step"
EARLY = "outside of training: nothing is to be saved"


def stopped(run: Disturbed, kind: str, *, code: int, saved: tuple[int, int] | None, **where: Any) -> str:
    """Start the run and stop it; check its exit code, its status, and at which step it was saved (from, to)."""
    before = run.status()
    exit_code, said = run.run(run.fault(kind, **where))
    what = f"{kind} {where}: exit code {exit_code}, {run.status()}\n{said[-2500:]}"
    assert exit_code == code, what
    if saved is None:
        assert EARLY in said and run.status() == before, what
        assert f'File "{ROOT / "src"}' not in said, what  # no traceback of ours; torchrun shows its own
    else:
        assert run.status()["status"] == "preempted" and SAID in said, what
        assert saved[0] <= run.status()["step"] <= saved[1], what
        assert not (run.folder / "STOP").exists(), what
    return said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_plain_process(tmp_path: Path) -> None:
    whole = undisturbed(tmp_path, ranks=1)
    run = Disturbed(tmp_path, "hurt", ranks=1)
    stopped(run, "signal:INT", at="startup", code=130, saved=None)
    stopped(run, "signal:HUP", step=4, code=75, saved=(5, 6))
    stopped(run, "signal:USR1", at="save", step=9, code=75, saved=(9, 14))
    stopped(run, "signal:TERM", at="evaluation", step=20, code=75, saved=(20, 20))
    stopped(run, "touch", to=str(run.folder / "STOP"), at="startup", code=75, saved=(20, 22))
    stopped(run, "signal:INT", at="epoch_end", step=40, code=130, saved=(40, 42))
    stopped(run, "touch", to=str(run.folder / "STOP"), at="evaluation", step=60, code=75, saved=(60, 60))
    code, said = run.run()
    assert code == 0, said
    assert run.differences(whole) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_under_torchrun(tmp_path: Path) -> None:
    whole = undisturbed(tmp_path, ranks=2)
    run = Disturbed(tmp_path, "hurt", ranks=2)
    # A save goes on beside training, up to the next one.
    # A worker that stopped ends with 0; torchrun that was itself asked ends with 1, whatever its workers did.
    stopped(run, "signal:TERM", at="startup", to="parent", code=1, saved=None)
    stopped(run, "signal:USR1", rank=1, step=4, code=0, saved=(5, 6))
    stopped(run, "signal:INT", at="save", step=9, code=0, saved=(9, 14))
    stopped(run, "signal:HUP", rank=1, at="evaluation", to="parent", step=20, code=1, saved=(20, 20))
    stopped(run, "signal:TERM", rank=1, at="epoch_end", step=40, code=0, saved=(40, 42))
    code, said = run.run()
    assert code == 0, said
    assert run.differences(whole) == []


def test_an_evaluation_of_an_average_is_broken_off_while_it_gathers_statistics(tmp_path: Path) -> None:
    settings = ("average=ema", "average.recalibrate_images=128", "average.start_epoch=0", "epochs=2", "max_local_batch_size=16")
    whole = undisturbed(tmp_path, ranks=1, settings=settings)
    run = Disturbed(tmp_path, "hurt", ranks=1, settings=settings)
    stopped(run, "signal:TERM", at="recalibration", step=20, code=75, saved=(20, 20))
    code, said = run.run()
    assert code == 0, said
    assert run.differences(whole) == []


def test_a_second_signal_ends_a_process_that_hangs(tmp_path: Path) -> None:
    run = Disturbed(tmp_path, "hurt", ranks=1)
    hang = run.fault("hang", step=7)
    process = run.start(hang)
    wait_until(hang.marker.exists)
    process.send_signal(signal.SIGTERM)
    time.sleep(2.5)  # longer than the launcher takes to repeat a signal
    assert process.poll() is None
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and time.monotonic() - start < 10


def test_an_old_stop_file_is_taken_away_and_a_newer_one_obeyed(tmp_path: Path) -> None:
    run = Disturbed(tmp_path, "r", ranks=1, settings=("epochs=1", "schedule.warmup_epochs=0"))
    run.folder.mkdir()
    (run.folder / "STOP").touch()
    code, said = run.run()
    assert code == 0 and SAID not in said
    assert not (run.folder / "STOP").exists()
