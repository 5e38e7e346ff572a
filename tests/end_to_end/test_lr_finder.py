"""The learning-rate finder as the user runs it."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger

from src import lr_finder
from tests.conftest import RunDoor
from tests.end_to_end.small_data import COMBINATIONS, settings_of, write_small_data
from tests.end_to_end.test_help import ROOT, WATCHED

NET = ("model=small_resnet", "model.width=4", "model.stem_stride=2", "batch_size=36", "data.workers=2")
SYNTHETIC = (
    *("data=synthetic", "data.num_train=330", "data.num_val=50", "data.stored_size=16", "data.image_size=16"),
    *("data.resize_size=18", *NET, "run_name=r"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def find(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run the door in this process; return its last line, its log, and what it wrote."""
    threads = torch.get_num_threads()

    def run(*arguments: str) -> dict[str, Any]:
        assert lr_finder.main([*arguments, f"runs_dir={tmp_path}"]) == 0
        said = capsys.readouterr()
        result: dict[str, Any] = json.loads(said.out.splitlines()[-1])
        folder = Path(result["folder"])
        with open(folder / "lr.csv") as file:
            rows = list(csv.DictReader(file))
        return result | {"rows": rows, "said": said.err, "files": sorted(path.name for path in folder.iterdir())}

    yield run
    torch.set_num_threads(threads)
    logger.remove()


def test_three_ranges_are_searched_plotted_written_and_told(find: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    found = find(*SYNTHETIC, "start_lr=1e-6,1e-4,1e-2", "end_lr=10,1,100", "num_iter=60")
    assert found["status"] == "finished"
    assert found["files"] == ["lr.csv", "range-1.png", "range-2.png", "range-3.png", "ranges.png"]
    assert [(one["start_lr"], one["end_lr"]) for one in found["suggestions"]] == [(1e-6, 10.0), (1e-4, 1.0), (1e-2, 100.0)]
    for number, one in enumerate(found["suggestions"], start=1):
        rows = [row for row in found["rows"] if row["range"] == str(number)]
        assert len(rows) == one["steps"] <= 60
        if one["steepest"] is not None:
            assert one["steepest"] in [float(row["lr"]) for row in rows]
            assert f"{one['steepest']:.3g}" in found["said"]
    assert any(one["steepest"] is not None for one in found["suggestions"])
    assert "optim.peak_lr, the schedule and epochs are not used" in found["said"]
    assert "range 2 of 3, step 30 of 60" in found["said"]
    assert not (tmp_path / "r").exists(), "a search is no run"
    again = find(*SYNTHETIC, "num_iter=30")
    assert again["files"] == ["lr.csv", "range-1.png", "ranges.png"], "an earlier search's plots are gone"


def test_rate_schedule_and_epochs_of_the_configuration_change_nothing(find: Callable[..., dict[str, Any]]) -> None:
    rows = find(*SYNTHETIC, "num_iter=30")["rows"]
    other = find(*SYNTHETIC, "num_iter=30", "optim.peak_lr=7", "schedule=step", "epochs=11", "average=ema", "run_name=other")
    assert other["rows"] == rows
    assert find(*SYNTHETIC, "num_iter=30", "label_smoothing=0.3")["rows"] != rows


@pytest.mark.parametrize("name", list(COMBINATIONS))
def test_every_engine_and_source_is_searched(find: Callable[..., dict[str, Any]], data: Path, name: str) -> None:
    found = find(*settings_of(name, data), *NET, "num_iter=30", "start_lr=1e-4")  # five epochs of six steps
    assert [float(row["loss"]) > 0 for row in found["rows"]] == [True] * 30


def test_the_help_tells_its_own_keys_and_imports_nothing_heavy() -> None:
    watched = WATCHED.replace("src.train", "src.lr_finder")
    for arguments, code in ((["--help"], 0), (["star_lr=1"], 2), (["--multirun", "seed=0,1"], 2)):
        command = [sys.executable, "-c", watched, *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert done.stderr.splitlines()[-1] == "imported:"
        assert "Traceback" not in done.stderr
        if code == 0:
            for key in ("start_lr", "end_lr", "num_iter", "smoothing", "diverge", "optim "):
                assert key in done.stdout


def test_every_problem_is_told_at_once_without_a_traceback(run_door: RunDoor) -> None:
    done = run_door("star_lr=1", "end_lr=-1", "optim.momentun=1", "epochs=0", module="src.lr_finder")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines[0] == "4 problems in the command line:"
    assert len(lines) == 5
    assert "Did you mean start_lr?" in done.stderr and "Did you mean optim.momentum?" in done.stderr


def test_data_that_is_not_there_is_told_without_a_traceback(run_door: RunDoor, tmp_path: Path) -> None:
    done = run_door("data=imagefolder", f"data.path={tmp_path}/none", f"runs_dir={tmp_path}", module="src.lr_finder")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
