"""A small run that faults disturb: started by the same command again and again, and compared with one that nothing disturbed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.end_to_end.kill_harness import SETTINGS, SYNTHETIC, compare
from tests.faults import Fault

STEPS_AN_EPOCH = 20
SMALL = (*SYNTHETIC, *SETTINGS, "epochs=3")


class Disturbed:
    """One run's folder and the command that works on it.

    Args:
        runs_dir: made if it does not exist.
        name: of the run.
        ranks: more than one run under torchrun.
        settings: added to the command.
        launcher: options for torchrun.
    """

    def __init__(
        self, runs_dir: Path, name: str, *, ranks: int, settings: tuple[str, ...] = (), launcher: tuple[str, ...] = ()
    ) -> None:
        self.folder, self._ranks, self._launcher = runs_dir / name, ranks, launcher
        self._settings = (*SMALL, *settings, f"runs_dir={runs_dir}", f"run_name={name}")
        self._marks = runs_dir / f"{name}-marks"
        self._marks.mkdir(parents=True)

    def fault(self, kind: str, **where: Any) -> Fault:
        """Return a fault with a marker of its own."""
        return Fault(
            kind, self._marks / f"{len(list(self._marks.iterdir()))}-{kind.replace(':', '-')}-{where.get('step', 0)}", **where
        )

    def start(self, *faults: Fault) -> subprocess.Popen[str]:
        """Start it on one core, so that a plain process and each rank have one thread."""
        core = {sorted(os.sched_getaffinity(0))[0]}
        launcher: list[str] = []
        if self._ranks > 1:
            launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={self._ranks}", *self._launcher]
        texts = [fault.text() for fault in faults]
        command = [sys.executable, *launcher, "-m", "tests.faults", *texts, "--", *self._settings]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}

        def settle() -> None:
            if self._ranks == 1:
                os.sched_setaffinity(0, core)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under nohup, or in the background
            signal.signal(signal.SIGINT, signal.default_int_handler)

        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=settle
        )

    def run(self, *faults: Fault) -> tuple[int, str]:
        """Start it and wait for its end; every fault must have happened. Returns the exit code and what it said."""
        process = self.start(*faults)
        try:
            _, said = process.communicate(timeout=800)
        finally:
            if process.poll() is None:
                process.terminate()  # torchrun takes its workers along, if need be after half a minute
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=60)
                process.kill()
        for fault in faults:
            assert fault.marker.exists(), f"{fault} did not happen:\n{said[-3000:]}"
        return process.returncode, said

    def status(self) -> dict[str, Any]:
        """Read status.json; empty where there is none."""
        file = self.folder / "status.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def differences(self, whole: "Disturbed") -> list[str]:
        """Name everything that is not as in the run that nothing disturbed."""
        assert self.status()["status"] == "finished"
        assert not (self.folder / "STOP").exists()
        return compare(whole.folder, self.folder)


def undisturbed(runs_dir: Path, *, ranks: int, settings: tuple[str, ...] = ()) -> Disturbed:
    """Train to the end."""
    whole = Disturbed(runs_dir, "whole", ranks=ranks, settings=settings)
    code, said = whole.run()
    assert code == 0, said[-3000:]
    return whole


def wait_until(what: Any, seconds: float = 120) -> None:
    """Poll for a state."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.02)
