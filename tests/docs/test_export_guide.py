"""docs/export.md, typed from a small run to its exported folders."""

import json
from pathlib import Path

from tests.docs.conftest import OpenShell
from tests.docs.scenarios import Added, Scenario
from tests.unit.exporting.small_runs import SMALL, write_run

GUIDE = "docs/export.md"
FAST = Added("src.export", "latency=false", "measuring takes a quarter of a minute a command, and shows nothing here")
EXPORT = Scenario(GUIDE, ("Export", "What is checked", "Use it elsewhere"), (FAST,), below=False)
INT8 = Scenario(GUIDE, ("8-bit integers",), (FAST, Added("src.export", "max_drop=100", "an untrained model")), long=True)
SCENARIOS = (EXPORT, INT8)


def folders(project: Path) -> list[str]:
    return sorted(path.name for path in (project / "exports").iterdir())


def test_a_run_is_exported_checked_and_evaluated_as_the_guide_says(open_shell: OpenShell) -> None:
    shell = open_shell()
    write_run(shell.project / "runs" / "demo", *SMALL)
    first, checked, evaluated = (json.loads(done.stdout.splitlines()[-1]) for done in EXPORT.play(shell))
    assert folders(shell.project) == ["checked", "demo"]
    assert first["target"] == "exports/demo"
    assert checked["check"]["all"]
    assert evaluated["val_acc1"] == checked["check"]["model"]["acc1"]


def test_int8_is_made_as_the_guide_says(open_shell: OpenShell) -> None:
    shell = open_shell()
    write_run(shell.project / "runs" / "demo", *SMALL)
    (done,) = INT8.play(shell)
    assert "int8" in json.loads(done.stdout.splitlines()[-1])["formats"]
    assert (shell.project / "exports" / "int8" / "model.int8.onnx").exists()
