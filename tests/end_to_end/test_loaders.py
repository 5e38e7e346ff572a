"""The doors with every source and engine: train, copy near, hold in memory, replace bad images, do without FFCV."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from src.training.checkpoint_file import load_file
from tests.conftest import RunDoor
from tests.end_to_end.small_data import COMBINATIONS, settings_of, write_small_data

NET = (
    *("model=small_resnet", "model.width=4", "model.stem_stride=2", "batch_size=36", "schedule.warmup_epochs=1", "epochs=2"),
    *("track.log_every_steps=2", "eval_batch_size=7", "data.workers=2"),
)
Train = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def train(run_door: RunDoor, tmp_path: Path) -> Train:
    """Train and return what came of it: the result, the last checkpoint, the rows, what was said."""

    def run(name: str, *arguments: str, **options: Any) -> dict[str, Any]:
        done: subprocess.CompletedProcess[str] = run_door(*arguments, *NET, f"runs_dir={tmp_path}", f"run_name={name}", **options)
        assert done.returncode == 0, done.stderr[-3000:]
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        state = load_file(tmp_path / name / "checkpoints" / "last.ckpt")
        return {"result": json.loads(done.stdout.splitlines()[-1]), "rows": rows, "said": done.stderr, "state": state}

    return run


def same_weights(one: dict[str, Any], two: dict[str, Any]) -> bool:
    models = one["state"]["model"], two["state"]["model"]
    return all(torch.equal(models[0][name], models[1][name]) for name in models[0])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if name not in ("ffcv/beton", "nvimgcodec/parquet") else [])
        for name in COMBINATIONS
    ],
)
def test_every_engine_and_source_trains_on_two_ranks(tmp_path, data, train, name):
    near = () if name.endswith("synthetic") else (f"data.copy_to={tmp_path}/near", "data.in_memory=true")
    trained = train("r", *settings_of(name, data), *near, ranks=2)
    assert trained["result"]["status"] == "finished"
    assert trained["result"]["val_acc1"] * 50 / 100 == pytest.approx(round(trained["result"]["val_acc1"] * 50 / 100))
    assert trained["state"]["history"][-1]["images"] == 50
    assert trained["state"]["history"][-1]["protocol"]["engine"] == name.split("/")[0]
    assert [row["data/bad_images"] for row in trained["rows"]] == [0] * len(trained["rows"])


def test_the_same_images_in_folder_tar_and_parquet_train_the_same_model(data, train):
    models = {}
    for name in ("torchvision/folder", "torchvision/tar", "nvimgcodec/parquet"):
        models[name] = train(name.replace("/", "-"), *settings_of(name, data))
    first, *others = models.values()
    assert all(same_weights(first, other) for other in others)


def test_copies_and_memory_change_nothing_and_are_used_again(tmp_path, data, train):
    settings = settings_of("nvimgcodec/beton", data)
    far = train("far", *settings)
    near = train("near", *settings, f"data.copy_to={tmp_path}/near", "data.in_memory=true")
    assert same_weights(far, near)
    (copy,) = (tmp_path / "near").glob("*/train.beton")
    before = copy.stat().st_ino
    train("again", *settings, f"data.copy_to={tmp_path}/near", "epochs=1")
    assert copy.stat().st_ino == before


def test_bad_images_are_replaced_alike_and_counted(data, train, tmp_path):
    settings = settings_of("torchvision/folder", write_small_data(tmp_path / "harmed"))
    for number in (3, 60, 111):
        (file,) = (tmp_path / "harmed" / "folder" / "train").glob(f"*/{number:04}.JPEG")
        file.write_bytes(file.read_bytes()[:200])
    runs = [
        train(engine, *settings, f"data.engine={engine}", "data.bad_image=replace", "data.max_bad_images=3")
        for engine in ("torchvision", "nvimgcodec" if "nvimgcodec" in _installed() else "torchvision")
    ]
    assert same_weights(*runs)
    for run in runs:
        epochs = [row["data/bad_images"] for row in run["rows"] if row["kind"] == "epoch"]
        assert epochs == [3, 3]
        assert sum(row["data/bad_images"] for row in run["rows"] if row["kind"] == "train") == 6
        assert run["said"].count("another is shown in its place") == 3


def test_bad_images_are_refused_before_training_by_default(tmp_path, run_door):
    settings = settings_of("torchvision/tar", write_small_data(tmp_path / "harmed"))
    archive = tmp_path / "harmed" / "tar" / "train.tar"
    content = archive.read_bytes()
    place = content.index(b"\xff\xd9", 5000)
    archive.write_bytes(content[:place] + b"\0\0" + content[place + 2 :])
    done = run_door(*settings, *NET, f"runs_dir={tmp_path}")
    assert done.returncode == 2
    assert "train.tar/ant/" in done.stderr and "data.bad_image=replace" in done.stderr and "Traceback" not in done.stderr


def test_without_ffcv_its_file_is_read_with_the_same_plan_and_it_is_said_loudly(tmp_path, data, train):
    broken = tmp_path / "broken" / "ffcv"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libopencv_core.so: cannot open shared object file')")
    settings = settings_of("ffcv/beton", data)
    without = train("without", *settings, env={"PYTHONPATH": str(tmp_path / "broken")})
    assert "FFCV IS NOT USED" in without["said"]
    assert "libopencv_core.so" in without["said"]
    assert "apt" in without["said"] and "conda" in without["said"]
    auto = train("auto", *settings, "data.engine=auto")
    assert same_weights(without, auto)


def test_a_resume_with_another_engines_pixels_is_said_loudly(tmp_path, data, train):
    broken = tmp_path / "broken" / "ffcv"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('gone')")
    settings = settings_of("ffcv/beton", data)
    train("r", *settings)
    again = train("r", *settings, env={"PYTHONPATH": str(tmp_path / "broken")})
    assert "OTHER PIXELS" in again["said"]


def _installed() -> set[str]:
    from importlib.util import find_spec

    try:
        return {"nvimgcodec"} if find_spec("nvidia.nvimgcodec") is not None else set()
    except ModuleNotFoundError:
        return set()
