"""`python -m src.benchmark loaders`: what it writes, what it refuses, and that nothing of it stays, however it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from src.loader_results import compare, paired_ratio
from src.loader_scratch import PREFIX
from tests.pictures import encode, write_files

ROOT = Path(__file__).resolve().parents[2]
RunDoor = Callable[..., subprocess.CompletedProcess[str]]
DOOR = "src.benchmark"
TINY = ("images=64", "batch=16", "image_size=32", "workers=1", "pairs=1", "seconds=0")
FIGURES = {"images_per_second", "interval", "n", "cpu_seconds_per_1000", "first_batch_seconds", "peak_mib", "stored", "dtype"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {f"{name}/{number}.jpg": encode("jpeg", 120, 90, number) for name in ("ant", "bee") for number in range(6)}
    return write_files(tmp_path_factory.mktemp("pictures"), files)


def test_ours_and_a_peer_are_measured_and_compared(pictures: Path, run_door: RunDoor, tmp_path: Path) -> None:
    before = leftovers()
    done = run_door(
        "loaders",
        f"data={pictures}",
        *TINY,
        "only=torchvision/folder,torchvision-dataloader",
        f"plot={tmp_path}/p.png",
        module=DOOR,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert result["benchmark"] == "loaders"
    assert (result["images"], result["unique_images"], result["bad_images"], result["rounds"], result["cpus"]) == (64, 12, 0, 1, 1)
    assert (list(result["engines"]), list(result["peers"])) == (["torchvision/folder"], ["torchvision-dataloader"])
    assert result["missing"] == {}
    for figures in (result["engines"]["torchvision/folder"], result["peers"]["torchvision-dataloader"]):
        assert figures.keys() >= FIGURES
        assert (figures["n"], figures["dtype"], figures["stored"]) == (1, "uint8", "jpeg")
        assert figures["images_per_second"] > 10
        assert 0 < figures["first_batch_seconds"] < 60
        assert 10 < figures["peak_mib"] < 4000
    ours, stock = (result[key][name]["images_per_second"] for key, name in zip(("engines", "peers"), named(result), strict=True))
    assert result["ratio_to_best_peer"] == pytest.approx(ours / stock)
    assert result["ratios"]["torchvision"]["ratio"] == pytest.approx(ours / stock)
    assert (result["ratio_to_ffcv"], result["ratios"]["dali"]) == (None, None)
    assert "torch" in result["versions"]
    assert "torchvision-dataloader" in done.stderr
    assert leftovers() == before


def named(result: dict[str, Any]) -> tuple[str, str]:
    return result["best_engine"], result["best_peer"]


def test_one_that_cannot_be_measured_is_told_and_the_rest_goes_on(pictures: Path, run_door: RunDoor) -> None:
    # A process whose library cannot be imported stands for one that is not installed.
    broken = write_files(pictures.parent / "broken", {"timm/__init__.py": b"raise ImportError('no timm today')\n"})
    path = f"{broken}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    chosen = "only=torchvision/beton,timm-loader"
    done = run_door("loaders", f"data={pictures}", *TINY, chosen, module=DOOR, env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["missing"] == {"timm-loader": "not installed: no timm today"}
    assert list(result["engines"]) == ["torchvision/beton"]
    assert result["ratio_to_best_peer"] is None
    assert "timm-loader: left out: not installed: no timm today" in done.stderr


def test_nobody_to_measure_is_told_with_the_reasons(pictures: Path, run_door: RunDoor) -> None:
    broken = write_files(pictures.parent / "broken", {"timm/__init__.py": b"raise ImportError('no timm today')\n"})
    done = run_door("loaders", f"data={pictures}", *TINY, "only=timm-loader", module=DOOR, env={"PYTHONPATH": str(broken)})
    assert (done.returncode, done.stdout) == (2, "")
    assert "timm-loader: not installed: no timm today" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["loadrs"], "benchmark = 'loadrs': no such benchmark. Did you mean loaders?"),
        (["loaders"], "data: is missing"),
        (["loaders", "data=/no/such"], "data = '/no/such': no such folder."),
        (["loaders", "data=.", "image=3"], "image = '3': no such option. Did you mean images?"),
        (["loaders", "data=.", "pairs=0", "quality=101"], "quality = '101': must be a whole number of at least 1 and at most 100."),
        (["loaders", "data=.", "workers=few"], "workers = 'few': must be a whole number of at least 1, or auto."),
        (["loaders", "data=.", "workers=100000"], "workers = 100000: this process may use"),
        (["loaders", "data=.", "only=nvimgcodec/bton"], "Did you mean nvimgcodec/beton?"),
        (["loaders", "data=.", "images=100", "batch=64"], "images = 100: an epoch needs three batches at least. Set images=192"),
        (["loaders", "data=.", "plot=/no/such/p.png"], "there is no folder /no/such"),
        (["loaders", "data=tests/configs", "images=384"], "holds no image that can be decoded"),
        (["step", "pairs=1"], "is not pairs=<number> or steps=<number>, of at least 2."),
    ],
)
def test_a_wrong_argument_is_one_message_and_exit_code_2(arguments: list[str], message: str, run_door: RunDoor) -> None:
    done = run_door(*arguments, module=DOOR)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_no_process_and_no_folder(pictures: Path, number: signal.Signals) -> None:
    arguments = [
        "loaders",
        f"data={pictures}",
        *TINY[:-2],
        "pairs=1000",
        "seconds=1",
        "only=torchvision/folder,torchvision-dataloader",
    ]
    settings = os.environ | {"OMP_NUM_THREADS": "1"}
    door = subprocess.Popen(
        [sys.executable, "-m", DOOR, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings
    )
    try:
        assert door.stderr is not None
        assert any("round 1 of 1000" in line for line in door.stderr)
        assert len(contenders_of(door.pid)) == 2
        assert scratch_of(door.pid)
        began = time.monotonic()
        door.send_signal(number)
        out, error = door.communicate(timeout=30)
        assert time.monotonic() - began < 10
        assert (door.returncode, out) == (128 + number, "")
        assert "Traceback" not in error
        assert (contenders_of(door.pid), scratch_of(door.pid)) == ([], [])
    finally:
        door.kill()
        door.wait()


def contenders_of(pid: int) -> list[str]:
    """Return the command lines of the contenders of a benchmark, whoever their parent is now."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode()
            leads = path.parent.joinpath("stat").read_text().rpartition(")")[2].split()[3] == path.parent.name
        except OSError:
            continue
        if "src.loader_contenders" in command and re.search(rf"{PREFIX}{pid}-", command) and leads:
            found.append(command)
    return found


def scratch_of(pid: int) -> list[Path]:
    return [path for place in ("/dev/shm", "/tmp") for path in Path(place).glob(f"{PREFIX}{pid}-*")]


def leftovers() -> set[Path]:
    return {path for place in ("/dev/shm", "/tmp") for path in Path(place).glob(f"{PREFIX}*")}


def test_only_rounds_of_the_same_number_are_compared() -> None:
    # The machine halves its speed in the second round: the ratio within a round does not notice.
    assert paired_ratio([200.0, 100.0, 200.0], [100.0, 50.0, 100.0]) == {"ratio": 2.0, "interval": (2.0, 2.0)}


def test_only_those_on_the_same_kind_of_storage_are_compared() -> None:
    speeds = {
        "nvimgcodec/beton": [30.0],
        "nvimgcodec/beton-raw": [900.0],
        "torchvision/folder": [20.0],
        "ffcv-loader": [10.0],
        "ffcv-loader-raw": [300.0],
        "dali-pipeline-aliased": [29.0],
        "torchvision-dataloader": [15.0],
    }
    made = compare(speeds)
    assert (made["best_engine"], made["best_peer"]) == ("nvimgcodec/beton", "torchvision-dataloader")  # the aliased does less
    assert (made["ratio_to_best_peer"], made["ratio_to_ffcv"], made["ratio_to_ffcv_raw"]) == (2.0, 3.0, 3.0)
    assert list(made["paired"]["nvimgcodec/beton-raw"]) == ["ffcv-loader-raw"]
    assert made["ratios"]["torchvision"]["ratio"] == pytest.approx(20 / 15)
    assert made["ratios"]["ffcv"] is None
