"""What a first batch can tell is told before anything is trained: exit 2, on every rank, with all other problems."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.data.plan import CropLaw, EpochPlan
from tests.pictures import encode, write_files
from tests.training.conftest import NET

Door = Callable[..., Any]
TRAIN, BATCH = 96, 32
SIZES = ("data.image_size=16", "data.resize_size=18", "data.engine=torchvision")
RUN = (*NET, "epochs=1", "schedule.warmup_epochs=0", "run_name=r")


@pytest.fixture
def settings(tmp_path: Path) -> tuple[str, ...]:
    """Write a folder of images and return what trains on it."""
    for split, count in (("train", TRAIN), ("val", 20)):
        files = {f"{'abc'[number % 3]}/{number:03}.png": encode("png", 20, 20, number) for number in range(count)}
        write_files(tmp_path / "data" / split, files)
    data = ("data=imagefolder", f"data.path={tmp_path / 'data'}", f"data.cache_dir={tmp_path / 'cache'}")
    return (*data, *SIZES, *RUN, f"runs_dir={tmp_path / 'runs'}")


def break_image(tmp_path: Path, split: str, position: int) -> str:
    """Damage the middle of a PNG, so that its header and end are good and decoding fails; the position is that in the index."""
    file = sorted((tmp_path / "data" / split).rglob("*.png"))[position]
    data = file.read_bytes()
    file.write_bytes(data[:200] + b"junk" * 50 + data[400:])
    return str(file.relative_to(tmp_path / "data"))


def order() -> list[int]:
    """Return the positions in the order in which an epoch shows them."""
    plan = EpochPlan(
        np.full((TRAIN, 2), 20, np.int32),
        seed=0,
        epoch=0,
        batch_size=BATCH,
        local_batch_size=BATCH,
        law=CropLaw((0.08, 1.0), (0.75, 4 / 3), 0.5),
        repeats=1,
    )
    return [int(position) for position in plan.order]


def test_a_broken_image_in_the_first_batch_is_a_problem_of_the_preflight(
    tmp_path: Path, settings: tuple[str, ...], run_door: Door
) -> None:
    train, val = break_image(tmp_path, "train", order()[3]), break_image(tmp_path, "val", 7)
    done = run_door(*settings, "dry_run=true")
    assert done.returncode == 2, done.stderr
    assert "2 problems in the preflight:" in done.stderr
    assert re.search(rf"data = 'imagefolder': {train} cannot be decoded", done.stderr)
    assert re.search(rf"data = 'imagefolder': {val} cannot be decoded", done.stderr)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_of_any_rank_and_told_once(tmp_path: Path, settings: tuple[str, ...], run_door: Door) -> None:
    broken = break_image(tmp_path, "train", order()[BATCH - 1])  # the last of the batch: rank 1's
    done = run_door(*settings, ranks=2)
    assert done.returncode != 0
    assert len(re.findall(r"(?m)^1 problem in the preflight:", done.stderr)) == 1
    assert re.search(rf"data = 'imagefolder': on .* \(rank 1\): {broken} cannot be decoded", done.stderr)
    assert "exitcode  : 2" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_where_bad_images_are_replaced_it_is_none(tmp_path: Path, settings: tuple[str, ...], run_door: Door) -> None:
    broken = break_image(tmp_path, "train", order()[3])
    done = run_door(*settings, "data.bad_image=replace", "track.log_every_steps=1")
    assert done.returncode == 0, done.stderr
    assert f"bad image 1 of at most 100, another is shown in its place: {broken}" in done.stderr
    assert done.stderr.count("another is shown in its place") == 1
    rows = [json.loads(line) for line in (tmp_path / "runs" / "r" / "metrics.jsonl").read_text().splitlines()]
    replaced = [row["data/bad_images"] for row in rows if row["kind"] == "train"]
    assert replaced == [1, 0, 0], "what the preflight drew is not counted"


def test_one_in_a_later_batch_ends_the_training(tmp_path: Path, settings: tuple[str, ...], run_door: Door) -> None:
    broken = break_image(tmp_path, "train", order()[BATCH + 3])
    done = run_door(*settings)
    assert done.returncode == 1, done.stderr
    assert re.search(r"loading +first batch of 32 images in \d+\.\d\d s: [\d,]+ images/s, 20 to evaluate in", done.stderr)
    assert f"ERROR   {broken} cannot be decoded" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "runs" / "r" / "status.json").read_text())["status"] == "failed"
