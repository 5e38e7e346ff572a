"""CIFAR-10, Imagenette and folders of classes in small, in the forms they are published in.

The pickles are made instruction by instruction as Python 2 and the numpy of 2009 made the published ones, which Python 3 cannot.
"""

import io
import struct
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.imagenet.layouts.imagenette import IMAGENETTE
from src.imagenet.sets.cifar import CLASSES, PER_BATCH
from tests.pictures import encode, write_files


class Batches(NamedTuple):
    """Labels (6, n) and pixels (6, n, 3072) of the batches 1 to 5 and, last, the test batch."""

    labels: NDArray[np.uint8]
    pixels: NDArray[np.uint8]

    @property
    def names(self) -> list[str]:
        return [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def batches(per_batch: int = 30, seed: int = 0) -> Batches:
    random = np.random.default_rng(seed)
    labels = np.stack([random.permutation(np.arange(per_batch, dtype=np.uint8) % 10) for _ in range(6)])
    return Batches(labels, random.integers(0, 256, (6, per_batch, 3072), dtype=np.uint8))


def binary_files(made: Batches) -> dict[str, bytes]:
    rows = np.concatenate([made.labels[:, :, None], made.pixels], axis=2)
    files = {f"cifar-10-batches-bin/{name}.bin": rows[index].tobytes() for index, name in enumerate(made.names)}
    return {"cifar-10-batches-bin/batches.meta.txt": b"airplane\n", **files, "cifar-10-batches-bin/readme.html": b"<a>"}


def pickled_files(made: Batches) -> dict[str, bytes]:
    files = {name: batch_pickle(made.labels[index].tolist(), made.pixels[index]) for index, name in enumerate(made.names)}
    return {f"cifar-10-batches-py/{name}": data for name, data in {**files, "batches.meta": b"\x80\x02}."}.items()}


def batch_pickle(labels: Sequence[int], pixels: NDArray[np.uint8], *, dtype: str = "u1", before: bytes = b"") -> bytes:
    """Write {batch_label, labels, data, filenames} in protocol 2, with instructions of one's own before the dict's end."""
    memo = iter(range(1, 10**6))

    def put() -> bytes:
        return b"q" + bytes([number]) if (number := next(memo)) < 256 else b"r" + struct.pack("<I", number)

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value + put()

    rows, columns = pixels.shape
    data = pixels.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\n" + put() + b"cnumpy\nndarray\n" + put() + b"K\0\x85U\x01b\x87R" + put()
    array += b"(K\x01" + b"M" + struct.pack("<H", rows) + b"M" + struct.pack("<H", columns) + b"\x86"
    array += b"cnumpy\ndtype\n" + put() + text(dtype.encode()) + b"K\0K\x01\x87R" + put()
    array += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89T" + struct.pack("<I", len(data)) + data + b"tb"
    numbers = b"]" + put() + b"(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    names = b"]" + put() + b"(" + b"".join(text(b"x_s_%06d.png" % index) for index in range(rows)) + b"e"
    fields = text(b"batch_label") + text(b"training batch") + text(b"labels") + numbers + text(b"data") + array
    return b"\x80\x02}" + put() + b"(" + fields + text(b"filenames") + names + before + b"u."


def expected_pngs(made: Batches) -> dict[str, NDArray[np.uint8]]:
    """Return path in the target to pixels (32, 32, 3)."""
    expected = {}
    for index in range(6):
        for row, label in enumerate(made.labels[index].tolist()):
            place = f"{PER_BATCH * index + row:05d}" if index < 5 else f"{row:05d}"
            image = made.pixels[index, row].reshape(3, 32, 32).transpose(1, 2, 0)
            expected[f"{'train' if index < 5 else 'val'}/{CLASSES[label]}/{place}.png"] = image
    return expected


def write_tar(path: Path, files: Mapping[str, bytes], *, extra: Sequence[tarfile.TarInfo] = ()) -> Path:
    """Write a tar, gzipped where the name says so, with members of any kind besides, which come last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:" if path.suffix == ".tar" else "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return path


def imagenette_files(per_class: int = 3, wnids: Sequence[str] = tuple(sorted(IMAGENETTE))) -> dict[str, bytes]:
    """Return path below the root to bytes; without the csv."""
    files = {}
    for label, wnid in enumerate(wnids):
        for number in range(per_class):
            files[f"train/{wnid}/{wnid}_{10 + number}.JPEG"] = encode("jpeg", seed=100 * label + number)
        files[f"train/{wnid}/ILSVRC2012_val_{1 + label:08d}.JPEG"] = encode("jpeg", seed=5_000 + label)
        files[f"val/{wnid}/{wnid}_{99}.JPEG"] = encode("jpeg", seed=9_000 + label)
    return files


def imagenette_archive(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write the archive with what the published ones hold besides."""
    root = path.name.partition(".")[0]
    return write_tar(
        path, {f"{root}/noisy_imagenette.csv": b"path,noisy\n", **{f"{root}/{name}": data for name, data in files.items()}}
    )


def class_folders(root: Path, counts: Mapping[str, int]) -> Path:
    """Write an ImageFolder without splits: class to number of images."""
    files = {f"{name}/{number}.png": encode("png", 8, 8, seed=number) for name, count in counts.items() for number in range(count)}
    return write_files(root, files)
