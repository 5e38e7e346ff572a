"""ImageNet's devkit: read as tar.gz, tar or folder; its counts; and no bomb under its name takes memory or minutes."""

import gzip
import io
import resource
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from src.batch import DataError
from src.data.tar.devkit import read_devkit
from tests.scale_models import devkit_files, scale_model, write_devkit

META, TRUTH = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"
MODEL = scale_model(20)
MOST_GROWTH = 400 * 1024  # KiB of memory


def tar(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(f"ILSVRC2012_devkit_t12/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def refused(path: Path, words: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=words) as caught:
        read_devkit(path)
    assert str(path) in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_GROWTH


def test_all_forms_tell_the_same(tmp_path: Path):
    forms = [
        read_devkit(write_devkit(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", MODEL)),
        read_devkit(write_devkit(tmp_path / "folder", MODEL)),
        read_devkit(tar(tmp_path / "kit.tar", devkit_files(MODEL), "w")),
    ]
    assert forms[0] == forms[1] == forms[2]
    assert forms[0].classes == MODEL.wnids
    assert [forms[0].classes[label] for label in forms[0].labels] == list(MODEL.val_classes.values())
    assert forms[0].train_counts == dict.fromkeys(MODEL.wnids, 3)


@pytest.mark.parametrize("odd", [None, 0, -1, "many", float("nan"), float("inf"), []], ids=str)
def test_training_images_that_are_not_told_or_make_no_sense_are_nothing(tmp_path: Path, odd: object):
    import scipy.io

    rows = scipy.io.loadmat(io.BytesIO(devkit_files(MODEL)[META]), squeeze_me=True)["synsets"]
    names = [name for name in rows.dtype.names if name != "num_train_images" or odd is not None]
    anew = [tuple(odd if name == "num_train_images" else row[name] for name in names) for row in rows]
    memory = io.BytesIO()
    scipy.io.savemat(memory, {"synsets": np.array(anew, [(name, "O") for name in names]).reshape(-1, 1)})
    kit = read_devkit(tar(tmp_path / "kit.tar.gz", devkit_files(MODEL) | {META: memory.getvalue()}))
    assert kit.train_counts == {} and kit.classes == MODEL.wnids


def test_a_gzip_bomb_is_refused(tmp_path: Path):
    path = tmp_path / "ILSVRC2012_devkit_t12.tar.gz"
    block = gzip.compress(bytes(2**24), 1)
    path.write_bytes(block * 128)  # 2 GiB inflated
    refused(path, r"holds more than 67,108,864 bytes")


def test_a_large_file_in_front_is_refused(tmp_path: Path):
    bomb = {"large": bytes(70 * 2**20)}
    refused(tar(tmp_path / "kit.tar.gz", bomb | devkit_files(MODEL)), r"holds more than")


def test_another_archive_under_its_name_is_refused_unread(tmp_path: Path):
    path = tmp_path / "ILSVRC2012_devkit_t12.tar"
    with open(path, "wb") as file:
        file.truncate(2**40)
    refused(path, r"holds more than")


@pytest.mark.parametrize("parts", [1, 3])
def test_a_bomb_in_meta_mat_is_refused(tmp_path: Path, parts: int):
    packed = zlib.compress(bytes(96 * 2**20 // parts), 1)
    element = (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed
    files = devkit_files(MODEL)
    files[META] += element * parts
    refused(tar(tmp_path / "kit.tar.gz", files), r"meta\.mat inflates to more than")
    (tmp_path / "kit/data").mkdir(parents=True)
    for name in (META, TRUTH):
        (tmp_path / "kit" / name).write_bytes(files[name])
    refused(tmp_path / "kit", r"meta\.mat inflates to more than")


@pytest.mark.parametrize("damage", ["cut", "flipped", "not gzip", "empty"])
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: str):
    path = write_devkit(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", MODEL)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= damage == "flipped"
    path.write_bytes({"cut": bytes(data[:-200]), "not gzip": b"<html>" + bytes(data), "empty": b""}.get(damage, bytes(data)))
    refused(path, r"devkit")
