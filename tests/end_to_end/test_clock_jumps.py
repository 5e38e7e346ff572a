"""A wall clock that jumps by a year between steps, and files that are dated in the future, change nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import LAUNCHER_VARIABLES, ROOT


def test_the_clock_may_jump(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    command = [sys.executable, "-m", "tests.end_to_end.clock_jumps", str(tmp_path / "work")]
    env = kept | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=250, check=False)
    assert done.stdout, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["differences"] == []
    assert found["jumps"] >= 8, "the clock did not jump: nothing was tested"
