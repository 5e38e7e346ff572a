"""python -m src.report as it is typed, on runs that src.train left and on made-up ones, without a network."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from src.reporting.records import read_run
from tests.network import cut_off, reached_for, traced
from tests.unit.reporting.made_runs import make_run

ROOT = Path(__file__).resolve().parents[2]
RunDoor = Callable[..., subprocess.CompletedProcess[str]]
MakeFolder = Callable[..., Path]
WATCHED = """
import runpy, sys
sys.argv = ["src.report", *sys.argv[1:]]
try:
    runpy.run_module("src.report", run_name="__main__", alter_sys=True)
finally:
    print("imported:", *sorted(sys.modules.keys() & {heavy}), file=sys.stderr)
"""
FILES = {"report.html", "results.md", "results.csv", "results.json", "figures"}


def report(*words: str, heavy: tuple[str, ...] = ("torch",)) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WATCHED.format(heavy=set(heavy)), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_help_says_every_key_and_imports_nothing_heavy() -> None:
    done = report("--help", heavy=("torch", "matplotlib", "scipy", "numpy"))
    assert (done.returncode, done.stderr.strip()) == (0, "imported:")
    assert (ROOT / "conf" / "report.yaml").read_text().strip() in done.stdout
    assert "python -m src.report runs/demo-s0" in done.stdout


def test_mistakes_are_told_all_at_once_with_code_2(tmp_path: Path) -> None:
    done = report("counted=worst", "power=1", heavy=("torch", "matplotlib", "scipy"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("3 problems in the command line:")
    assert done.stderr.splitlines()[-1] == "imported:"
    gone = report(str(tmp_path / "nothing"), str(tmp_path / "no*"))
    assert gone.returncode == 2
    assert gone.stderr.startswith("2 problems in the runs:")
    assert "Traceback" not in done.stderr + gone.stderr


def test_five_seeds_against_five_in_one_command_with_the_network_cut(tmp_path: Path) -> None:
    for seed in range(5):
        make_run(tmp_path / "runs" / f"demo-s{seed}", [86.0, 91.0, 92.0 + seed / 10], seed=seed)
        make_run(tmp_path / "runs" / f"low-s{seed}", [85.0, 90.0, 91.0 + seed / 8], seed=seed, overrides=["optim.peak_lr=0.01"])
    words = (str(tmp_path / "runs" / "demo-s*"), str(tmp_path / "runs" / "low-s*"), f"against={tmp_path}/runs/low-s*")
    command = traced(tmp_path / "calls", sys.executable, "-m", "src.report", *words)
    done = subprocess.run(cut_off(*command), cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    assert reached_for(tmp_path / "calls") == []
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["status"] == "finished"
    assert said["target"] == str(tmp_path / "runs" / "report")
    assert said["groups"] == {"peak_lr=0.01": 5, "peak_lr=0.1": 5}
    assert [(one["group"], one["verdict"]) for one in said["comparisons"]] == [("peak_lr=0.1", "more than seed noise")]
    assert {path.name for path in (tmp_path / "runs" / "report").iterdir()} == FILES
    names = {"accuracy_epochs", "accuracy_hours", "loss", "learning_rate", "throughput"}
    wanted = {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert {path.name for path in (tmp_path / "runs" / "report" / "figures").iterdir()} == wanted
    again = report(str(tmp_path / "runs"), f"target={tmp_path / 'again'}")  # the report's own folder is no run
    assert again.stderr.splitlines()[-1] == "imported:"
    assert json.loads(again.stdout.splitlines()[-1])["runs"] == 10


@pytest.mark.slow
def test_what_src_train_leaves_is_read_as_it_was_measured(tmp_path: Path, make_folder: MakeFolder, run_door: RunDoor) -> None:
    make_folder(tmp_path / "data" / "train", per_class=16)
    make_folder(tmp_path / "data" / "val", per_class=6)
    small = ["experiment=demo", "data=imagefolder", f"data.path={tmp_path / 'data'}", f"runs_dir={tmp_path}", "run_name=r"]
    small += [f"data.cache_dir={tmp_path / 'cache'}", "data.image_size=16", "data.eval_image_size=16", "data.resize_size=16"]
    done = run_door(*small, "batch_size=8", "epochs=2", "schedule.warmup_epochs=0", "track.log_every_steps=2")
    assert done.returncode == 0, done.stderr
    told, run = json.loads(done.stdout.splitlines()[-1]), read_run(tmp_path / "r")
    assert (run.status, run.notes, run.steps_per_epoch) == ("finished", (), 4)
    assert (run.epochs[-1].val_acc1, run.epochs[-1].val_loss) == (told["val_acc1"], told["val_loss"])
    assert (run.protocol["images"], run.protocol["classes"], run.protocol["engine"]) == (12, 2, "exact")
    as_told = dict(run.protocol)
    (tmp_path / "r" / "status.json").write_text('{"status": "finished"}')  # then the log and the configuration tell
    assert read_run(tmp_path / "r").protocol == as_told
