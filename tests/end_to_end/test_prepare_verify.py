"""`python -m src.prepare verify` as its users type it, and what training knows afterwards; the benchmark beside tar and Pillow."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from src.config import ConfigError, load
from src.data.build import build_sources
from src.prepare_benchmark.options import parse_prepare
from tests.pictures import encode, write_files
from tests.scale_models import scale_model, write_official
from tests.unit.imagenet.verify.conftest import broken_png

RunDoor = Callable[..., subprocess.CompletedProcess[str]]
DOOR = "src.prepare"
SAMPLE = Path(__file__).resolve().parents[3] / "shared" / "data" / "imagenet-sample"
BAD = "train/bee/3.png"
TRAINING = (
    *("data=imagefolder", "model=small_resnet", "model.width=4", "data.image_size=16", "data.resize_size=16", "epochs=1"),
    *("batch_size=4", "schedule.warmup_epochs=0", "data.engine=torchvision"),
)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    files = {
        f"{split}/{name}/{n}.png": encode("png", 20, 20, n)
        for split in ("train", "val")
        for name in ("ant", "bee")
        for n in range(8)
    }
    return write_files(tmp_path / "pictures", files)


def verified(run_door: RunDoor, root: Path, *settings: str) -> tuple[int, dict, str]:
    done = run_door("verify", f"target={root}", *settings, module=DOOR)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_it_tells_a_sound_set_from_a_damaged_one_and_training_knows(pictures: Path, run_door: RunDoor, tmp_path: Path) -> None:
    code, told, table = verified(run_door, pictures, "level=3")
    assert code == 0 and told["status"] == "finished" and "nothing unknown was found" in table
    (pictures / BAD).write_bytes(broken_png())
    code, told, table = verified(run_door, pictures, "level=3", f"report={tmp_path / 'report.json'}")
    assert code == 1 and told["status"] == "failed" and BAD in table
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ok"] is False and report["level"] == 3
    named = {finding["check"]: finding["offenders"] for finding in report["findings"] if finding["verdict"] == "problem"}
    assert set(named) == {"usable by training", "the trainer's index"} and all(BAD in each[0] for each in named.values())
    assert json.loads((pictures / ".prepare/report.json").read_text()) == report

    settings = (*TRAINING, f"data.path={pictures}", f"runs_dir={tmp_path / 'runs'}")
    refused = run_door(*settings, "run_name=raise")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert (
        str(pictures / BAD) in refused.stderr and "cannot be decoded" in refused.stderr and "Replace or remove it" in refused.stderr
    )
    silent = {"threads": 2, "progress": lambda done, total: None}
    train, _ = build_sources(load([*settings, "data.bad_image=replace"]).data, **silent)
    assert len(train) == 16, "a bad image that is replaced keeps its place in the plan"
    (pictures / BAD).write_bytes(encode("png", 20, 20, 3))
    train, _ = build_sources(load(settings).data, **silent)
    assert len(train) == 16


def test_a_prepared_set_is_compared_with_what_the_preparation_wrote(run_door: RunDoor, tmp_path: Path) -> None:
    model = scale_model(classes=20)
    write_official(tmp_path / "source", model)
    target = tmp_path / "Imagenet"
    settings = (f"source={tmp_path / 'source'}", f"target={target}", "checksum=off", "expect=any", "level=3")
    done = run_door(*settings, module=DOOR)
    assert done.returncode == 0, done.stderr
    table = {line.split("  ")[2].strip(): line for line in done.stderr.splitlines() if line.startswith("  ")}
    assert "20 classes have what the development kit tells" in table["train: images a class"]
    assert (target / ".prepare/train_counts.tsv").read_text() == "".join(f"{wnid}\t3\n" for wnid in model.wnids)
    assert " ok " in table["the preparation's list"] and "checksums agree" in table["the preparation's list"]
    victim = sorted(target.glob("val/*/*.JPEG"))[4]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    assert verified(run_door, target, "level=2", "expect=any")[0] == 0
    code, _, table_text = verified(run_door, target, "level=3", "expect=any")
    assert code == 1 and f"{victim.relative_to(target)} has other bytes" in table_text
    victim.unlink()
    code, _, table_text = verified(run_door, target, "level=1", "expect=any")
    assert code == 1 and f"{victim.relative_to(target)} is missing" in table_text
    wnid = model.wnids[4]
    lost = sorted((target / "train" / wnid).iterdir())[1]
    lost.rename(tmp_path / lost.name)
    code, _, table_text = verified(run_door, target, "level=0", "expect=any")
    assert code == 1 and f"train/{wnid}: 2 of 3" in table_text and "1 classes have not what the development kit tells" in table_text
    (tmp_path / lost.name).rename(lost)
    code, _, table_text = verified(run_door, target, "level=0", "expect=imagenet")
    assert code == 1 and "of 1,281,167" in table_text and "and 979,0" not in table_text


def test_what_cannot_be_verified_is_one_message(run_door: RunDoor, tmp_path: Path) -> None:
    done = run_door("verify", f"target={tmp_path / 'nowhere'}", module=DOOR)
    assert done.returncode == 2 and "no such folder" in done.stderr and "Traceback" not in done.stderr
    done = run_door("prepare", "pairs=0", "image=3", module="src.benchmark")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    for words in ("data: was not given", "pairs = '0'", "Did you mean images?"):
        assert words in done.stderr, done.stderr
    with pytest.raises(ConfigError, match="holds no JPEG"):
        parse_prepare([f"data={tmp_path}"])


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="../shared/data/imagenet-sample is not there: it is not part of the project")
def test_the_benchmark_measures_real_images_and_leaves_nothing(run_door: RunDoor, tmp_path: Path) -> None:
    done = run_door("prepare", f"data={SAMPLE}", "images=100", "pairs=1", f"folder={tmp_path}", "workers=2", module="src.benchmark")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["images"] == 100 and 50_000 < figures["mean_bytes"] < 200_000
    for part, beside in (("extraction", "tar x twice"), ("verification", "Pillow, one process")):
        rates = figures[part]["images_per_second"]
        assert len(rates) == 3 and all(rate["low"] <= rate["median"] <= rate["high"] for rate in rates.values())
        ours = next(iter(rates))
        assert figures[part]["times_as_fast_as"][beside]["median"] == pytest.approx(rates[ours]["median"] / rates[beside]["median"])
    assert figures["full_imagenet"]["verification_hours"] > 0
    assert list(tmp_path.iterdir()) == []
