"""Tars as their users write them, by Python's tarfile, and ImageNet's devkit in small."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from src.data.sources.tar import TarSource

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def tar_bytes(files: Mapping[str, bytes], form: str = "gnu", folders: tuple[str, ...] = ()) -> bytes:
    """Return a tar of these files."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w", format=FORMATS[form]) as archive:
        for folder in folders:
            member = tarfile.TarInfo(folder)
            member.type = tarfile.DIRTYPE
            archive.addfile(member)
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return memory.getvalue()


def write_tar(path: Path, files: Mapping[str, bytes], form: str = "gnu", folders: tuple[str, ...] = ()) -> Path:
    """Write a tar of these files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(files, form, folders))
    return path


def of_class_tars(files: Mapping[str, bytes], form: str = "gnu") -> dict[str, bytes]:
    """Turn `<class>/<file>` into `<class>.tar`, as ImageNet's training tar has them."""
    classes = dict.fromkeys(name.split("/")[0] for name in files)
    return {
        f"{folder}.tar": tar_bytes(
            {name.split("/", 1)[1]: data for name, data in files.items() if name.split("/")[0] == folder}, form
        )
        for folder in classes
    }


def write_devkit(folder: Path, wnids: list[str], truth: list[int]) -> Path:
    """Write a devkit's folder.

    Args:
        folder: to write.
        wnids: of ILSVRC2012_ID 1, 2, ...
        truth: ILSVRC2012_ID of validation image 1, 2, ...
    """
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    inner = [(len(wnids) + 1, "n00000001", "entity", len(wnids))]
    rows = [(number, wnid, f"word {number}", 0) for number, wnid in enumerate(wnids, 1)]
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": np.array(rows + inner, dtype=kind).reshape(-1, 1)}, do_compression=True)
    (folder / "data").mkdir(parents=True)
    (folder / "data/meta.mat").write_bytes(meta.getvalue())
    (folder / "data/ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{number}\n" for number in truth))
    return folder


def every(labels: Any) -> Any:
    """Choose all."""
    return np.arange(len(labels))


def open_tars(*paths: Path, **options: Any) -> TarSource:
    """Open all samples, in two threads."""
    options = {
        "choose": every,
        "threads": 2,
        "progress": lambda done, total: None,
        "cache_dir": paths[0].parent / "cache",
    } | options
    return TarSource(paths, **options)


def contents(source: Any) -> list[tuple[str, list[int], bytes]]:
    """Return class, size and bytes of every sample."""
    return [
        (source.classes[source.labels[index]], source.sizes[index].tolist(), bytes(source.read(index).data))
        for index in range(len(source))
    ]
