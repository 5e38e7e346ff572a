"""`python -m src.prepare fashion_mnist`, the door as a process: what it answers, and the real 70,000 images through a kill."""

import gzip
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from src.imagenet.fashion.fashion_mnist import CLASSES, SPLITS, Split, missing_splits

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data" / "fashion_mnist"
RunDoor = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def prepare(run_door: RunDoor) -> RunDoor:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_door(*arguments, module="src.prepare")

    return run


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Path]:
    """A folder for 70,000 files, in memory where there is room: a disk mounted with `discard` takes minutes to delete them."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30:
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            yield Path(folder)
    else:
        yield tmp_path


def assert_refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr


def test_help_names_every_key_and_imports_no_torch() -> None:
    script = "import atexit, sys, runpy; atexit.register(lambda: print('torch' in sys.modules, 'PIL' in sys.modules)); "
    script += "sys.argv[1:] = ['--help']; runpy.run_module('src.prepare', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    for word in ("fashion_mnist", "target=<folder>", "source=<folder>", "data/fashion_mnist"):
        assert word in done.stdout
    assert done.stdout.endswith("False False\n")


def test_every_mistake_of_the_command_line_is_told_at_once(prepare: RunDoor) -> None:
    assert_refused(
        prepare("fashion_mnist", "tarjet=x", "source=", "more"),
        "3 problems in the command line:",
        "tarjet = 'x': no such key. Known: target, source. Did you mean target?",
        "source: has no value. Type source=<folder>.",
        "more: no such key.",
    )
    assert_refused(
        prepare("fashon_mnist", "level=4", "tarjet=x", "more"),
        "4 problems in the command line:",
        "data set = 'fashon_mnist': no such data set. Known: fashion_mnist, cifar10, imagenette. Did you mean fashion_mnist?",
        "level = 4: ",
        "tarjet = 'x': no such key.",
        "Did you mean target?",
        "more: is not of the form key=value.",
    )
    assert_refused(
        prepare(), "source: was not given. Type source=<an archive or a folder>, or name one of: fashion_mnist, cifar10,"
    )
    assert_refused(prepare("verify", "source=x"), "source: verify reads only target, level, expect, report, workers.")


def test_a_target_that_is_something_else_is_refused(prepare: RunDoor, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    parts = (f"target = '{tmp_path}': already holds something else (thesis.tex).", "target=<folder>")
    assert_refused(prepare("fashion_mnist", f"target={tmp_path}"), *parts)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_source_without_the_files_is_refused(prepare: RunDoor, tmp_path: Path) -> None:
    done = prepare("fashion_mnist", f"target={tmp_path / 'new'}", f"source={tmp_path}")
    assert_refused(done, f"source = '{tmp_path}': no train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz there.")
    assert not (tmp_path / "new").exists()


def test_files_that_are_not_the_published_ones_are_refused(prepare: RunDoor, tmp_path: Path) -> None:
    for split in SPLITS:
        for file in (split.images, split.labels):
            (tmp_path / file.name).write_bytes(gzip.compress(file.header[:8]))
    done = prepare("fashion_mnist", f"target={tmp_path / 'new'}", f"source={tmp_path}")
    assert_refused(
        done, "4 problems in the data set:", f"{tmp_path}/t10k-images-idx3-ubyte.gz: ends within its header. Replace it."
    )
    assert not (tmp_path / "new").exists()


def read_back(root: Path, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Put the images (N, 28, 28) and labels (N,) of a split in their original order, which is in the files' names."""
    images = np.zeros(split.images.shape, np.uint8)
    labels = np.full(split.labels.shape, 255, np.uint8)
    for label, name in enumerate(CLASSES):
        for path in (root / split.name / name).iterdir():
            with Image.open(path, formats=("PNG",)) as image:
                images[int(path.stem)] = image
            labels[int(path.stem)] = label
    return images, labels


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(not DATA.is_dir(), reason="data/fashion_mnist is not there: run `make data`")
def test_the_real_images_survive_a_kill(prepare: RunDoor, roomy: Path) -> None:
    source, target = roomy / "source", roomy / "target"
    source.mkdir()
    arrays = {split: read_back(DATA, split) for split in SPLITS}
    for split, pair in arrays.items():
        for file, array in zip((split.images, split.labels), pair, strict=True):
            header = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape)
            (source / file.name).write_bytes(
                gzip.compress(header + array.tobytes(), 1)
            )  # the door compares it with the published md5
    command = [sys.executable, "-m", "src.prepare", "fashion_mnist", f"target={target}", f"source={source}"]
    killed = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert killed.stderr is not None
    assert any("writing images: 7,000 of 70,000" in line for line in killed.stderr)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.communicate()[0] == ""
    assert [path.name[:9] for path in target.iterdir()] == [".partial-"]

    done = prepare(*command[3:])
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result.pop("seconds") > 0
    assert result == {"status": "finished", "target": str(target), "train": 60_000, "val": 10_000}
    assert sorted(path.name for path in target.iterdir()) == ["train", "val"]
    assert missing_splits(target) == []
    for split, (images, labels) in arrays.items():
        written_images, written_labels = read_back(target, split)
        np.testing.assert_array_equal(written_images, images)
        np.testing.assert_array_equal(written_labels, labels)

    shutil.rmtree(source)
    again = prepare(*command[3:])
    assert again.returncode == 0, again.stderr
    assert f"{target} is complete already: nothing to do." in again.stderr
    assert json.loads(again.stdout.splitlines()[-1])["train"] == 60_000
    shutil.rmtree(target)  # pytest keeps the last three temporary folders: not 70,000 files each
