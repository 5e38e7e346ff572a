"""--help, --cfg and --run-dir answer at once: no torch is imported for them, nor for a mistake at the door."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from src.config import load
from src.config.cli import EXAMPLES

ROOT = Path(__file__).resolve().parents[2]
RunDoor = Callable[..., subprocess.CompletedProcess[str]]
# Runs the module as `python -m` does, and tells which heavy packages it has imported when it leaves.
WATCHED = """
import runpy, sys
sys.argv = ["src.train", *sys.argv[1:]]
try:
    runpy.run_module("src.train", run_name="__main__", alter_sys=True)
finally:
    print("imported:", *sorted(sys.modules.keys() & {"torch", "torchvision", "numpy", "PIL"}), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--cfg", "job", "optim=sf_sgd"], 0),
        (["--run-dir"], 0),
        (["epochs=0"], 2),
        (["--multirun", "seed=0,x"], 2),
    ],
)
def test_what_needs_no_torch_imports_none(arguments: list[str], code: int) -> None:
    command = [sys.executable, "-c", WATCHED, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1] == "imported:"
    assert "Traceback" not in done.stderr


def test_help_shows_every_group_and_five_commands(run_door: RunDoor) -> None:
    done = run_door("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for folder in (ROOT / "conf").iterdir():
        if folder.is_dir():
            (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"  {folder.name} ")]
            for file in folder.glob("[!_]*.yaml"):
                assert file.stem in line.replace("|", " ").split()
    examples = done.stdout.partition("five commands to begin with:\n")[2].splitlines()
    assert len(examples) == 5
    assert all(line.startswith(("  python -m src.train ", "  torchrun ")) for line in examples)


def test_cfg_prints_the_whole_configuration_as_yaml(run_door: RunDoor) -> None:
    done = run_door("--cfg", "job", "model=resnet18", "data=synthetic", "seed=7")
    assert (done.returncode, done.stderr) == (0, "")
    tree = yaml.safe_load(done.stdout)
    assert (tree["seed"], tree["model"]["arch"], tree["data"]["eval_image_size"]) == (7, "resnet18", tree["data"]["image_size"])
    assert "hydra" not in tree


def test_the_examples_of_the_help_are_valid() -> None:
    examples = EXAMPLES.splitlines()[1:]
    for line in examples:
        typed = [word.split(",")[0] for word in line.split() if "=" in word and not word.startswith("--")]
        assert typed
        load(typed)


EVERY_DOOR = """
import contextlib, importlib, io, sys
for name in sys.argv[1:]:
    door = importlib.import_module(f"src.{name}")
    for typed, code in ((["--help"], 0), (["--no_such_option", "seed=x=y,"], 2)):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                ended = door.main(typed)
            except SystemExit as left:
                ended = left.code
        assert ended == code, (name, typed, ended, err.getvalue())
        assert code or f"usage: python -m src.{name} " in out.getvalue(), out.getvalue()
        heavy = sys.modules.keys() & {"torch", "torchvision", "numpy", "PIL"}
        assert not heavy, (name, typed, heavy)
"""


def test_no_door_needs_torch_to_help_or_to_refuse() -> None:
    doors = ("train", "evaluate", "report", "export", "demo", "audit", "prepare", "ffcv_writer", "lr_finder")
    command = [sys.executable, "-c", EVERY_DOOR, *doors]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
