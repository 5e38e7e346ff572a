"""`python -m src.benchmark loaders`: what it writes, what it refuses, and that nothing of it stays, however it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from src.loader_benchmark.catalogue import CATALOGUE, Task
from src.loader_benchmark.contenders import check, run_pass
from src.loader_benchmark.options import Options
from src.loader_benchmark.results import compare, paired_ratio
from src.loader_benchmark.scratch import PREFIX, prepare
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


@pytest.mark.parametrize(
    ("library", "reason"),
    [
        pytest.param(b"raise ImportError('no timm today')", "not installed: no timm today", marks=pytest.mark.long),
        (b"raise ValueError('too\\nbad')", "ValueError: too bad"),
        (b"import os; os.write(2, b'out of luck\\n'); os.abort()", "ended by signal 6: out of luck"),
    ],
)
def test_one_that_cannot_be_measured_is_told_and_the_rest_goes_on(
    pictures: Path, library: bytes, reason: str, run_door: RunDoor, tmp_path: Path
) -> None:
    # A library that breaks when it is imported stands for one that is not installed, refuses, or crashes.
    broken = write_files(tmp_path, {"timm/__init__.py": library})
    path = f"{broken}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    chosen = "only=torchvision/beton,timm-loader"
    done = run_door("loaders", f"data={pictures}", *TINY, chosen, module=DOOR, env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["missing"] == {"timm-loader": reason}
    assert list(result["engines"]) == ["torchvision/beton"]
    assert result["ratio_to_best_peer"] is None
    assert f"timm-loader: left out: {reason}" in done.stderr


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


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_no_process_and_no_folder(pictures: Path, number: signal.Signals) -> None:
    arguments = [
        "loaders",
        f"data={pictures}",
        *TINY[:-1],
        "seconds=60",
        "only=torchvision/folder,torchvision-dataloader",
    ]
    settings = os.environ | {"OMP_NUM_THREADS": "1"}
    door = subprocess.Popen(
        [sys.executable, "-m", DOOR, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings
    )
    try:
        assert door.stderr is not None
        assert any("torchvision-dataloader: first batch after" in line for line in door.stderr)
        time.sleep(1)  # the first of the two is in the middle of its minute
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
        if "src.loader_benchmark.contenders" in command and re.search(rf"{PREFIX}{pid}-", command) and leads:
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


class Shows:
    """A contender that shows what it is given."""

    def __init__(self, *epochs: list[Tensor]) -> None:
        self._epochs = iter(epochs)

    def epoch(self) -> Iterator[Tensor]:
        return iter(next(self._epochs))

    def close(self) -> None: ...


def task(batches: int = 3, workers: int = 2) -> Task:
    return Task("torchvision/folder", "", 12, batches, 8, 4, workers)


def epoch(seed: int, shape: tuple[int, ...] = (4, 3, 8, 8)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(3)]


def test_nobody_is_measured_for_doing_nothing() -> None:
    assert check(Shows(epoch(1), epoch(2)), task()) == {"dtype": "uint8"}
    with pytest.raises(ValueError, match="of 12 images of an epoch differ"):
        check(Shows([torch.zeros(4, 3, 8, 8, dtype=torch.uint8)] * 3, epoch(2)), task())
    with pytest.raises(ValueError, match="12 of 12 images are the same in two epochs: boxes are not random"):
        check(Shows(epoch(1), epoch(1)), task())
    with pytest.raises(ValueError, match=r"a batch of shape \(4, 8, 8, 3\)"):
        check(Shows(epoch(1, (4, 8, 8, 3)), epoch(2)), task())
    with pytest.raises(ValueError, match="2 batches an epoch instead of 3"):
        run_pass(Shows(epoch(1)[:2]), task(), 0)


@pytest.mark.parametrize(("batches", "workers", "ends"), [(3, 2, (0, 1)), (31, 2, (2, 27)), (192, 16, (15, 175)), (12, 1, (2, 8))])
def test_the_clock_leaves_out_as_many_batches_at_both_ends(batches: int, workers: int, ends: tuple[int, int]) -> None:
    assert task(batches, workers).clock == ends
    assert ends[0] + 1 == batches - 1 - ends[1]


class Slow(Shows):
    """Takes a known time for each batch."""

    def epoch(self) -> Iterator[Tensor]:
        for batch in super().epoch():
            time.sleep(0.02)
            yield batch


def test_a_pass_lasts_as_long_as_it_should_and_counts_what_its_clock_saw() -> None:
    long = task(batches=12, workers=1)
    made = run_pass(Slow(*[epoch(1) * 4] * 10), long, 0.2)
    assert (made["images"], made["shown"]) == (2 * 6 * 4, 2 * 12 * 4)  # an epoch's clock sees 0.12 s
    assert 0.24 <= made["seconds"] < 0.6


LOADS = """
import json, sys
import numpy as np
from src.loader_benchmark.catalogue import Task
from src.loader_benchmark.contenders import build_contender
if __name__ == "__main__":
    contender = build_contender(Task(**json.loads(sys.argv[1])))
    np.save(sys.argv[2], np.concatenate([images.numpy().copy() for _ in range(2) for images in contender.epoch()]))
"""
PEERS = {"ffcv-loader": "ffcv", "dali-pipeline": "nvidia.dali", "timm-loader": "timm", "spdl-pipeline": "spdl.io"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["torchvision/folder", "torchvision-dataloader", "torchvision-v2-dataloader", "dali-pipeline-aliased", *PEERS]
)
def test_every_peer_does_the_task_that_ours_do(name: str, tmp_path: Path) -> None:
    """Red rises to the right and green downwards: so a crop's box and flip can be read from its pixels."""
    if (library := PEERS.get(name.removesuffix("-aliased"))) is not None:
        pytest.importorskip(library)
    y, x = np.mgrid[0:96, 0:96] * (240 / 95)
    (tmp_path / "data" / "ramp").mkdir(parents=True)
    Image.fromarray(np.stack([x, y, np.full_like(x, 100)], axis=-1).astype(np.uint8)).save(tmp_path / "data" / "ramp" / "0.png")
    options = Options(tmp_path / "data", images=256, quality=95)
    prepare(options, tmp_path, {CATALOGUE[name].needs}, threads=1, progress=lambda done, total: None)
    asked = Task(name, str(tmp_path), 256, 16, 64, 16, 1)
    command = [sys.executable, "-c", LOADS, json.dumps(asked.as_dict()), str(tmp_path / "shown.npy")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if "Failed to import libspdl" in done.stderr:
        pytest.skip("SPDL finds no FFmpeg libraries")
    assert done.returncode == 0, done.stderr
    shown = np.load(tmp_path / "shown.npy").astype(np.float64)
    if name == "timm-loader":  # normalised
        deviation, mean = ([[[0.229]], [[0.224]], [[0.225]]], [[[0.485]], [[0.456]], [[0.406]]])
        shown = (shown * np.array(deviation) + np.array(mean)) * 255
    assert shown.shape == (512, 3, 64, 64)
    inner = slice(8, 56)  # edges are resized otherwise
    across, down = shown[:, 0].mean(axis=1)[:, inner], shown[:, 1].mean(axis=2)[:, inner]
    width, height = ((line[:, -1] - line[:, 0]) * (64 / 47) / 240 for line in (across, down))
    assert 0.4 < (width < 0).mean() < 0.6  # flipped
    assert (height > 0).all()
    area, ratio = np.abs(width) * height, np.abs(width) / height
    assert 0.06 < area.min() < 0.15
    assert 0.85 < area.max() < 1.1
    assert 0.43 < area.mean() < 0.55
    assert 0.7 < np.quantile(ratio, 0.02) < 0.85
    assert 1.18 < np.quantile(ratio, 0.98) < 1.43
    assert min(across.mean(axis=1).std(), down.mean(axis=1).std()) > 15  # boxes lie anywhere
    assert np.abs(shown[:, 2] - 100).mean() < 2
