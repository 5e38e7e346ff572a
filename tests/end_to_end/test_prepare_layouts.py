"""Whatever ImageNet was downloaded as, the same data set comes out: names, bytes, classes, index; and the tars train alike."""

import io
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.config.prepare import load_prepare
from src.data.sources.folder import FolderSource
from src.data.sources.tar import TarSource
from src.imagenet.layouts.recognise import LAYOUTS as NAMES
from src.imagenet.wnids import imagenet_wnids
from tests.scale_models import (
    CMYK,
    LAYOUTS,
    PNG,
    Model,
    devkit_files,
    scale_model,
    write_folders,
    write_imagefolder,
    write_kaggle,
    write_official,
)

RunDoor = Callable[..., subprocess.CompletedProcess[str]]
LAYOUT_OF = {
    name: next(layout for layout in ("kaggle", "folders", "torrent", "huggingface", name) if layout in name) for name in LAYOUTS
}


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder in memory: 5,000 files are written and deleted again for every layout."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def prepare(run_door: RunDoor) -> Callable[..., dict[str, Any]]:
    def run(source: Path, target: Path, *settings: str) -> dict[str, Any]:
        arguments = (f"source={source}", f"target={target}", "expect=any", "checksum=off", *settings)
        done = run_door(*arguments, module="src.prepare")
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result

    return run


def tree_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def state_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *sorted(folder.rglob("*"))]
    }


def everything_in(target: Path) -> dict[str, bytes]:
    """All visible files: neither the indexes nor the folder of the preparation."""
    return {name: data for name, data in tree_below(target).items() if not name.startswith(".")}


def every(labels: Any) -> Any:
    return np.arange(len(labels))


def open_folder(root: Path, cache: Path) -> FolderSource:
    return FolderSource(root, choose=every, cache_dir=cache, threads=2, progress=lambda done, total: None)


def samples(source: FolderSource | TarSource) -> list[tuple[int, list[int], bytes]]:
    return [(int(source.labels[at]), source.sizes[at].tolist(), bytes(source.read(at).data)) for at in range(len(source))]


def expected_samples(model: Model, split: str) -> list[tuple[int, list[int], bytes]]:
    rank = {wnid: label for label, wnid in enumerate(model.wnids)}
    return [(rank[name[:9]], list(Image.open(io.BytesIO(data)).size), data) for name, data in sorted(model.split(split).items())]


def assert_is_the_model(target: Path, model: Model, scratch: Path) -> None:
    """Names, bytes, the class list, and what the trainer's index tells, which the preparation has made already."""
    files = everything_in(target)
    lines = [f"{label}\t{wnid}\t{model.words[wnid]}\n" for label, wnid in enumerate(model.wnids)]
    assert files.pop("classes.tsv").decode() == "".join(lines)
    assert sorted(files) == sorted(model.files)
    assert files == model.files
    for split in ("train", "val"):
        cache = target / f".{split}.index.npz"
        made = cache.stat()
        source = open_folder(target / split, scratch / "cache")
        assert source.classes == model.wnids
        assert samples(source) == expected_samples(model, split)
        assert [source.relative(at) for at in range(len(source))] == sorted(model.split(split))
        assert (cache.stat().st_ino, cache.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns), "the index was made anew"
        assert not (scratch / "cache").exists()


VARIANTS = ("folders with the devkit's folder", "torrent as tar", "huggingface compressed")  # whose units others have shown


@pytest.mark.parametrize("layout", [pytest.param(name, marks=pytest.mark.long) if name in VARIANTS else name for name in LAYOUTS])
def test_every_layout_of_a_thousand_classes_becomes_the_same_data_set(layout: str, prepare: Any, room: Path) -> None:
    model = scale_model()
    assert len(model.wnids) == 1000
    source = LAYOUTS[layout](room / "downloaded", model)
    before = state_of(source)
    result = prepare(source, room / "target")
    assert_is_the_model(room / "target", model, room)
    assert result["layout"] == LAYOUT_OF[layout]
    assert [result[split] for split in ("train", "val", "test")] == [3000, 1500, 7]
    assert state_of(source) == before, "the source was touched"


def test_the_model_has_what_imagenet_has() -> None:
    """The odd files are odd, two classes are called crane, and the devkit counts in another order than labels do."""
    model = scale_model()
    formats = {path: Image.open(io.BytesIO(data)) for path, data in model.files.items()}
    assert [path for path, image in formats.items() if image.format == "PNG"] == [f"train/{PNG[:9]}/{PNG}.JPEG"]
    assert [path for path, image in formats.items() if image.mode == "CMYK"] == sorted(
        f"train/{name[:9]}/{name}.JPEG" for name in CMYK
    )
    assert model.words["n02012849"] == model.words["n03126707"] == "crane"
    assert model.words["n03710637"] == "maillot" and model.words["n03710721"].startswith("maillot")
    assert model.wnids == imagenet_wnids() == tuple(sorted(model.wnids))
    assert sum(a == b for a, b in zip(model.wnids, model.devkit_order, strict=True)) < 10
    assert len(set(model.files.values())) == len(model.files)


def test_taking_the_devkits_numbers_for_labels_would_put_nearly_every_image_elsewhere(prepare: Any, room: Path) -> None:
    """The label trap, with the numbers as they stand in the file: each is in range, so nothing but the table tells."""
    model = scale_model()
    truth = devkit_files(model)["data/ILSVRC2012_validation_ground_truth.txt"].split()
    trapped = {name: model.wnids[int(number) - 1] for name, number in zip(model.val_classes, truth, strict=True)}
    same = sum(trapped[name] == wnid for name, wnid in model.val_classes.items())
    assert same < len(trapped) / 100
    prepare(write_official(room / "tars", model, test=False), room / "target", "until=arrange")
    placed = {path.name: path.parent.name for path in (room / "target/val").rglob("*.JPEG")}
    assert placed == model.val_classes


def test_training_from_the_tars_sees_the_same_samples_in_the_same_order(prepare: Any, room: Path) -> None:
    model = scale_model()
    tars = write_official(room / "tars", model)
    prepare(tars, room / "target")
    for split in ("train", "val"):
        devkit = tars / "ILSVRC2012_devkit_t12.tar.gz" if split == "val" else None
        read = TarSource(
            [tars / f"ILSVRC2012_img_{split}.tar"],
            choose=every,
            cache_dir=room / "cache",
            threads=2,
            progress=lambda done, total: None,
            devkit=devkit,
        )
        folder = open_folder(room / "target" / split, room / "cache")
        assert read.classes == folder.classes == model.wnids
        assert samples(read) == samples(folder) == expected_samples(model, split)


def test_a_source_folder_that_nobody_may_write_is_enough(prepare: Any, room: Path) -> None:
    """Bind-mounted read-only: root heeds no permission bits."""
    model = scale_model(30)
    source = write_folders(room / "source", model)
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a folder read-only")
    mounted = subprocess.run(["mount", "--bind", "-o", "ro", source, source], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no bind mounts here: {mounted.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", source], check=True)
        with pytest.raises(OSError, match="Read-only"):
            (source / "x").write_bytes(b"")
        prepare(source, room / "target")
    finally:
        subprocess.run(["umount", source], check=True)
    assert_is_the_model(room / "target", model, room)


def test_what_lacks_the_devkit_and_a_tar_is_told_so_at_once_and_nothing_is_made(run_door: RunDoor, room: Path) -> None:
    model = scale_model(30)
    source = write_official(room / "tars", model, devkit=False)
    (source / "ILSVRC2012_img_val.tar").unlink()
    done = run_door(f"source={source}", f"target={room / 'target'}", module="src.prepare")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz must lie there, too" in done.stderr
    assert not (room / "target").exists()


def test_validation_images_are_added_to_training_images_from_elsewhere(prepare: Any, room: Path) -> None:
    """The layout is typed and the other split stands there: then one alone is enough."""
    model = scale_model(30)
    write_imagefolder(room / "target", model)
    shutil.rmtree(room / "target/val")
    shutil.rmtree(room / "target/test")
    source = write_official(room / "tars", model, test=False)
    (source / "ILSVRC2012_img_train.tar").unlink()
    prepare(source, room / "target", "layout=official")
    shutil.copytree(write_imagefolder(room / "whole", model) / "test", room / "target/test")
    assert_is_the_model(room / "target", model, room)


def test_an_annotation_that_lies_is_met_when_classes_are_given_and_nothing_is_published(run_door: RunDoor, room: Path) -> None:
    source = write_kaggle(room / "tree", scale_model(30), csv=False)
    lie = source / "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000002.xml"
    lie.write_bytes(b"<annotation><object><name>crane</name></object></annotation>")
    done = run_door(f"source={source}", f"target={room / 'target'}", "expect=any", module="src.prepare")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert str(lie) in done.stderr and "'crane'" in done.stderr
    assert {path.name for path in (room / "target").iterdir()} <= {".prepare"}


def test_every_layout_of_the_models_is_one_that_can_be_typed() -> None:
    assert set(LAYOUT_OF.values()) <= set(NAMES)
    for name in LAYOUT_OF.values():
        assert load_prepare([f"layout={name}"]).layout == name
