"""One small set of JPEGs in every form that the trainer reads, and the settings that choose form and engine."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from src.data.beton.writer import write_beton
from src.data.sources.folder import FolderSource
from tests.pictures import KINDS, encode, write_files
from tests.unit.data.tars import write_tar

CLASSES = ("ant", "bee", "cow")
SIZES = ("data.image_size=16", "data.resize_size=18")
# engine/source, and the package without which it cannot run here
COMBINATIONS = {
    "torchvision/folder": None,
    "torchvision/tar": None,
    "torchvision/synthetic": None,
    "nvimgcodec/beton": "nvidia.nvimgcodec",
    "nvimgcodec/parquet": "pyarrow",
    "dali/folder": "nvidia.dali",
    "ffcv/beton": "ffcv",
}


def write_small_data(root: Path, *, train: int = 216, val: int = 50) -> Path:
    """Write root/folder, root/beton, root/tar and root/parquet: the same images in the same order."""
    for split, count in (("train", train), ("val", val)):
        files = {}
        for number in range(count):
            kind = KINDS[number % len(KINDS)] if number % 5 == 0 else "jpeg"
            picture = encode(kind, 24 + number % 9, 20 + number % 7, number + 1000 * (split == "val"))
            files[f"{CLASSES[number % 3]}/{number:04}.JPEG"] = picture
        write_files(root / "folder" / split, files)
        write_tar(root / "tar" / f"{split}.tar", files)
        source = FolderSource(
            root / "folder" / split,
            choose=lambda labels: np.arange(len(labels)),
            cache_dir=root / "cache",
            threads=2,
            progress=lambda done, total: None,
        )
        (root / "beton").mkdir(exist_ok=True)
        write_beton(source, root / "beton" / f"{split}.beton", workers=1, progress=lambda done, total, size: None)
        if find_spec("pyarrow") is not None:
            _write_parquet(root / "parquet" / f"{split}.parquet", source)
    return root


def settings_of(name: str, root: Path) -> tuple[str, ...]:
    """Return the command line's part that chooses an engine and a source of the small data; skip where it cannot run."""
    package = COMBINATIONS[name]
    if package is not None and not _is_installed(package):
        pytest.skip(f"{name}: {package} is not installed")
    engine, source = name.split("/")
    where = f"data.cache_dir={root}/cache"
    match source:
        case "folder":
            chosen = ("data=imagefolder", f"data.path={root}/folder", where)
        case "beton":
            chosen = ("data=ffcv", f"data.path={root}/beton", where)
        case "tar":
            paths = (f"data.train_path={root}/tar/train.tar", f"data.val_path={root}/tar/val.tar")
            chosen = ("data=tar", *paths, where)
        case "parquet":
            paths = (f"data.train_path={root}/parquet/train.parquet", f"data.val_path={root}/parquet/val.parquet")
            chosen = ("data=hf", *paths, where)
        case "synthetic":
            chosen = ("data=synthetic", "data.num_train=216", "data.num_val=50", "data.stored_size=20")
        case _:
            raise AssertionError(source)
    return (*chosen, f"data.engine={engine}", *SIZES)


def available() -> list[str]:
    """Return the combinations whose packages are installed."""
    return [name for name, package in COMBINATIONS.items() if package is None or _is_installed(package)]


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _write_parquet(path: Path, source: FolderSource) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": bytes(source.read(index).data), "path": source.name(index)} for index in range(len(source))]
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(source.classes)}}
    table = pa.table({"image": images, "label": pa.array(source.labels)})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=40)
