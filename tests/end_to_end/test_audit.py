"""src.audit catches what was tampered with, passes what is honest, and says what it cannot audit. More of it: audit_trials.py."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from src import audit
from src.tracking.ledger_file import MAGIC, read_rows
from tests.end_to_end.audit_trials import (
    EVERYTHING,
    HONEST,
    ROOT,
    SETTINGS,
    TAMPERED,
    killed,
    quietly,
    seal,
    trained,
    trial,
    write_images,
)

RunDoor = Callable[..., subprocess.CompletedProcess[str]]


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an honest run `runs/r` and its data."""
    folder = tmp_path_factory.mktemp("honest")
    write_images(folder / "data", 1)
    trained((*SETTINGS, f"data.path={folder}/data", f"runs_dir={folder}/runs", "run_name=r"))
    return folder


def audited(run: Path, *keys: str) -> tuple[int, dict[str, Any]]:
    code, out = quietly(lambda: audit.main([str(run), "seed=1", *keys]))
    return code, json.loads(out.splitlines()[-1]) if out.strip() else {}


@pytest.fixture
def one_core() -> Iterator[None]:
    """Let this process and what it starts have one core, so that torch takes one thread."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.parametrize("kind", TAMPERED)
def test_a_tampered_run_is_caught(tmp_path: Path, one_core: None, kind: str) -> None:
    code, verdict, told = trial(tmp_path, kind, seed=5)
    assert (code, verdict["status"]) == (1, "differs"), told
    assert any(name.startswith("replay") for name in verdict["differs"]), told


@pytest.mark.parametrize("kind", ["stopped", *(pytest.param(kind, marks=pytest.mark.long) for kind in HONEST if kind != "stopped")])
def test_an_honest_run_passes(tmp_path: Path, one_core: None, kind: str) -> None:
    code, verdict, told = trial(tmp_path, kind, seed=6)
    assert (code, verdict["status"], verdict["differs"]) == (0, "agrees", {}), told
    assert verdict["steps_replayed"] == 30 and verdict["steps_planned"] == verdict["steps"] == 40
    assert verdict["exact"] or kind == "elastic"


def test_an_audit_writes_nothing_and_needs_no_writable_folder(honest: Path) -> None:
    before = listing(honest)
    code, verdict = audited(honest / "runs" / "r", "evaluate=true", "windows=1", "steps=3")
    assert (code, verdict["status"], verdict["exact"]) == (0, "agrees", True)
    assert listing(honest) == before


def test_rounding_is_tolerated_and_nothing_more(honest: Path, tmp_path: Path) -> None:
    run = shutil.copytree(honest / "runs" / "r", tmp_path / "r")
    code, verdict = audited(run, *EVERYTHING, "compare=tolerance", "evaluate=true")
    assert (code, verdict["status"], verdict["exact"]) == (0, "agrees", False)
    steps = read_rows((run / "ledger.bin").read_bytes()).copy()
    steps["loss"][10] *= 1.001  # the first step after a checkpoint: rounding has not grown yet
    seal(run / "ledger.bin", MAGIC + steps.tobytes())
    code, verdict = audited(run, *EVERYTHING, "compare=tolerance")
    assert code == 1
    assert any("step 11: the ledger's loss" in detail for name, detail in verdict["differs"].items() if name.startswith("replay"))


def test_data_that_moved_is_found_where_it_is_said_to_be(honest: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(honest, tmp_path / "elsewhere")
    code, verdict = audited(moved / "runs" / "r", f"data.path={moved}/data", "windows=1", "steps=2")
    assert (code, verdict["differs"]) == (0, {})


def test_a_configuration_or_checkpoint_that_was_exchanged_is_named(honest: Path, tmp_path: Path) -> None:
    run = shutil.copytree(honest / "runs" / "r", tmp_path / "r")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("epochs: 4", "epochs: 5", 1))
    checkpoints = run / "checkpoints"
    kept = sorted(checkpoints.glob("*-epoch-*"))[0]
    kept.write_bytes((checkpoints / "last.ckpt").read_bytes())
    code, verdict = audited(run, "windows=0")
    assert code == 1
    assert "config.yaml is missing, or is not what was written" in verdict["differs"]["files"]
    assert f"{kept.name} is not the file that checkpoints.json names" in verdict["differs"]["files"]


def test_without_a_checkpoint_along_the_way_it_is_said_what_could_be_checked(honest: Path, tmp_path: Path) -> None:
    run = shutil.copytree(honest / "runs" / "r", tmp_path / "r")
    register = json.loads((run / "checkpoints" / "checkpoints.json").read_text())
    for file in (run / "checkpoints").glob("*.ckpt"):
        if file.name not in ("last.ckpt", "best.ckpt") or register[file.name]["step"] != 40:
            file.unlink()
            del register[file.name]
    (run / "checkpoints" / "checkpoints.json").write_text(json.dumps(register))
    code, out = quietly(lambda: audit.main([str(run), "seed=1"]))
    verdict = json.loads(out)
    assert (verdict["steps_replayable"], verdict["steps_replayed"], verdict["steps_planned"]) == (0, 0, 40)
    assert (code, verdict["status"]) in ((2, "not auditable"), (1, "differs"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{tmp}/r"], "ledger.bin: is missing, empty or no ledger"),
        (["{honest}/runs/r", "optim.peak_lr=9.0", "label_smoothing=0.2"], "optim.peak_lr = 9.0: was"),
        (["{tmp}/none", "windows=-1", "plans=some"], "no such folder"),
        (["{tmp}/none", "windows=-1", "plans=some"], "windows = -1"),
        ([], "name one run's folder"),
    ],
)
def test_what_cannot_be_audited_exits_with_2_and_says_why(
    honest: Path, tmp_path: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (shutil.copytree(honest / "runs" / "r", tmp_path / "r") / "ledger.bin").unlink()
    with pytest.raises(SystemExit) as left:
        audit.main([word.format(tmp=tmp_path, honest=honest) for word in words])
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "")
    assert told in err


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["runs/no-such-run", "windows=x"], 2)])
def test_help_and_mistakes_at_the_door_import_no_torch(arguments: list[str], code: int) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "src.audit", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code
    assert not any(line.split("|")[-1].strip() == "torch" for line in done.stderr.splitlines())
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_two_ranks_audit_what_two_ranks_trained_bit_for_bit(tmp_path: Path, run_door: RunDoor) -> None:
    write_images(tmp_path / "data", 2)
    settings = (*SETTINGS, f"data.path={tmp_path}/data", f"runs_dir={tmp_path}/runs", "run_name=r", "max_local_batch_size=16")
    done = run_door(*settings, ranks=2)
    assert done.returncode == 0, done.stderr[-2000:]
    done = run_door(f"{tmp_path}/runs/r", "seed=1", *EVERYTHING, ranks=2, module="src.audit")
    verdict = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, verdict["status"], verdict["exact"]) == (0, "agrees", True), done.stderr[-2000:]
    code, verdict = audited(tmp_path / "runs" / "r", *EVERYTHING)
    assert (code, verdict["status"], verdict["exact"]) == (0, "agrees", False)


@pytest.mark.long
def test_killed_on_two_ranks_and_resumed_passes_on_two_ranks(tmp_path: Path, run_door: RunDoor) -> None:
    write_images(tmp_path / "data", 3)
    settings = (*SETTINGS, f"data.path={tmp_path}/data", f"runs_dir={tmp_path}/runs", "run_name=r", "max_local_batch_size=16")
    killed(tmp_path, settings, random.Random(0), ranks=2)
    code, verdict = audited(tmp_path / "runs" / "r", *EVERYTHING)
    assert (code, verdict["differs"]) == (0, {})
