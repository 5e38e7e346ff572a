"""docs/audit.md, typed on a run of two ranks, on one, and with its data moved."""

import json
import shutil
from pathlib import Path

import pytest

from tests.docs.conftest import OpenShell
from tests.docs.guides import ROOT
from tests.docs.scenarios import Scenario, Swap

DEMO = ROOT / "data/fashion_mnist"
AUDIT = Scenario(
    "docs/audit.md",
    (),
    (
        Swap("'runs/<run_name>'", "runs/of_two", "the run that the test has trained"),
        Swap("/datasets/elsewhere", "{data}", "the data lie in a scratch folder"),
    ),
    long=True,
)
SCENARIOS = (AUDIT,)
TRAIN = (
    "torchrun --standalone --nproc_per_node=2 -m src.train experiment=demo run_name=of_two data.subset=tiny data.val_subset=tiny "
    "epochs=4 track.log_every_steps=5"
)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not DEMO.is_dir(), reason="data/fashion_mnist is not there: run `make data`")
def test_a_run_of_two_ranks_agrees_with_its_code_by_every_command_of_the_guide(open_shell: OpenShell, tmp_path: Path) -> None:
    shell = open_shell(patience=600)
    (shell.project / "data").mkdir()
    (shell.project / "data/fashion_mnist").symlink_to(DEMO)
    assert shell.type(TRAIN).returncode == 0
    done = AUDIT.play(shell, data=shutil.copytree(DEMO, tmp_path / "elsewhere"))
    assert all(json.loads(ended.stdout.splitlines()[-1]) for ended in done)
