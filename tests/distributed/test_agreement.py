"""Nodes that are not alike are refused on every rank, by name: else one of them fails alone and the others wait for it."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MakeFolder
from tests.distributed.conftest import ROOT, Torchrun

SCRIPT = str(Path(__file__).with_name("differing.py"))
SECOND = f"{socket.gethostname()} (rank 1)"


@pytest.fixture(scope="module")
def said(torchrun: Torchrun, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return what both ranks were told, by what differed."""
    folder = tmp_path_factory.mktemp("differing")
    torchrun(2, SCRIPT, str(folder))
    first, second = (json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first == second, "a rank that is told something else may go on alone"
    return first


@pytest.mark.parametrize("what", ["nothing", "paths", "same data", "a shared folder", "same checkpoint"])
def test_what_is_alike_or_may_differ_passes(said: dict[str, list[str]], what: str) -> None:
    assert said[what] == []


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("settings", "epochs = 2: but 3 on {there}. Start all nodes by the same command."),
        ("settings", "model.width = 16: but 8 on {there}."),
        ("code", "the code: on {there} it is not rank 0's. Bring every node to the same commit"),
        ("images", "its val split has other images on {there} than on rank 0 (20 and 19). All nodes need the same files."),
        ("classes", "its val split has other classes on {there} than on rank 0."),
        ("labels", "its val split has other labels on {there} than on rank 0."),
        ("sizes", "its val split has other sizes of images on {there} than on rank 0."),
        ("problems", "data.engine = 'dali': on {there}: is missing"),
        ("problems", "2 problems in test:\n  model = 'both': is wrong\n"),
        ("folders", "is not seen from {there}. Set runs_dir to a file system that all nodes share."),
        ("another checkpoint", "other.ckpt on {there} is another checkpoint than on rank 0."),
        ("missing checkpoint", "on {there}: missing.ckpt cannot be read: No such file or directory."),
        ("broken checkpoint", "on {there}: broken.ckpt"),
    ],
)
def test_what_differs_is_refused_on_every_rank_with_the_host(said: dict[str, list[str]], what: str, told: str) -> None:
    assert len(said[what]) == 1
    assert told.format(there=SECOND) in said[what][0]


def test_other_versions_are_warned_of(said: dict[str, list[str]]) -> None:
    (warning,) = said["versions"]
    assert "torch 2.99" in warning and f"on {SECOND}: the same numbers cannot be promised." in warning


def test_a_node_with_other_images_ends_the_training_of_all_with_one_message(make_folder: MakeFolder, tmp_path: Path) -> None:
    """By the command as the user has it; the second rank finds another folder under the same path."""
    for rank in (0, 1):
        for split in ("train", "val"):
            make_folder(tmp_path / f"node{rank}" / split, per_class=8)
    shutil.rmtree(tmp_path / "node1" / "val" / "bee")
    make_folder(tmp_path / "node1" / "val", classes=("bee",), per_class=7)
    there = f"os.chdir('{tmp_path}/node' + os.environ['RANK'])"
    (tmp_path / "launch.py").write_text(f"import os, runpy\n{there}\nrunpy.run_module('src.train', run_name='__main__')\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(tmp_path / "launch.py")),
            *(
                "data=imagefolder",
                "data.path=.",
                "data.cache_dir=cache",
                "data.image_size=16",
                "data.resize_size=18",
                "batch_size=8",
            ),
            *("model=small_resnet", "epochs=1", "schedule.warmup_epochs=0", f"runs_dir={tmp_path}/runs", "data.engine=torchvision"),
        ],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.splitlines().count("1 problem in the preflight:") == 1, done.stderr[-3000:]
    assert f"its val split has other images on {SECOND} than on rank 0 (16 and 15)" in done.stderr
    assert "src/preflight.py" not in done.stderr, "a traceback"
    assert not (tmp_path / "runs").exists()
