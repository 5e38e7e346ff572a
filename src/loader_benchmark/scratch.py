"""The same images in every form that a contender reads, in a scratch folder that does not survive the benchmark."""

import contextlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.config import ConfigError, Problem
from src.data.beton.writer import write_beton
from src.data.headers import FORMATS
from src.data.index import EXTENSIONS
from src.data.sources.folder import FolderSource
from src.loader_benchmark.catalogue import PREPARED, RAW_SIDE
from src.loader_benchmark.options import Options

STAGE = "the data"
PREFIX = "loader-benchmark-"
_MEMORY = Path("/dev/shm")
_SPARE = 2**30  # bytes that are left for what data loaders share through memory
_UNDECODABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
Progress = Callable[[int, int], None]


@contextlib.contextmanager
def scratch_folder(options: Options, needs: Iterable[str]) -> Iterator[Path]:
    """Make a folder, in memory where it has room, and delete it in any case.

    Raises:
        ConfigError: there is no room anywhere.
    """
    needed = _estimate(options, set(needs))
    places = [_MEMORY, Path(tempfile.gettempdir())]
    fitting = [place for place in places if _free(place) >= needed]
    if not fitting:
        fix = (
            f"about {needed / 1e9:,.1f} GB are prepared, which neither {places[0]} nor {places[1]} has free. Set a smaller number."
        )
        raise ConfigError(STAGE, [Problem("images", options.images, fix)])
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=fitting[0]))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prepare(options: Options, folder: Path, needs: set[str], *, threads: int, progress: Progress) -> dict[str, Any]:
    """Write everything that the contenders read.

    Args:
        options: what was asked for.
        folder: to write into.
        needs: keys of PREPARED.
        threads: that decode and encode.
        progress: called with (done, total), from 0 again for each form.

    Returns:
        What was written, for the report: unique images, those left out, mean bytes and sizes, what could not be made.

    Raises:
        ConfigError: there is no image.
    """
    unique, bad = _rewrite(options, threads, progress)
    if not unique:
        fix = "holds no image that can be decoded. Name a folder of class folders with images."
        raise ConfigError(STAGE, [Problem("data", str(options.data), fix)])
    root = folder / PREPARED["folder"]
    for number in range(options.images):
        name, data = unique[number % len(unique)]
        path = root / name / f"{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)  # no link: each has bytes of its own, as real data have, and as a .beton has
    source = FolderSource(root, choose=lambda labels: np.arange(len(labels)), cache_dir=folder, threads=threads, progress=progress)

    def tell(done: int, total: int, _: int) -> None:
        progress(done, total)

    recipes: dict[str, dict[str, Any]] = {
        "beton": {"mode": "jpg", "max_resolution": None, "jpeg_bytes": "original"},
        # What FFCV publishes for ImageNet: half of the images as pixels, at the resolution of the JPEGs.
        "beton-half-raw": {"mode": "proportion", "max_resolution": None, "jpeg_bytes": "original", "raw_fraction": 0.5},
        "beton-raw": {"mode": "raw", "max_resolution": RAW_SIDE},
    }
    for form in [form for form in recipes if form in needs]:
        write_beton(source, folder / PREPARED[form], workers=threads, progress=tell, **recipes[form])
    missing = {}
    if "tar" in needs:
        with tarfile.open(folder / PREPARED["tar"], "w") as archive:
            archive.add(root, arcname="images", filter=_plain)
    if "parquet" in needs:
        try:
            _write_parquet(root, folder / PREPARED["parquet"])
        except ImportError as error:
            missing["parquet"] = f"needs pyarrow: pip install 'imagenet-trainer[hf]' ({error})"
    return {
        "unique_images": len(unique),
        "bad_images": bad,
        "mean_bytes": round(float(np.mean([len(data) for _, data in unique]))),
        "mean_width_height": source.sizes.mean(axis=0).round(1).tolist(),
        "missing": missing,
    }


def _rewrite(options: Options, threads: int, progress: Progress) -> tuple[list[tuple[str, bytes]], int]:
    """Return (class, JPEG) of as many images as are wanted, classes in turn; and how many could not be decoded."""
    files = _files(options.data)[: options.images]

    def one(file: Path) -> tuple[str, bytes] | None:
        try:
            return file.relative_to(options.data).parts[0], _encode(file, options)
        except _UNDECODABLE:
            return None

    made: list[tuple[str, bytes]] = []
    with ThreadPoolExecutor(threads) as pool:
        for number, image in enumerate(pool.map(one, files), start=1):
            made += [image] if image else []
            progress(number, len(files))
    return made, len(files) - len(made)


def _files(root: Path) -> list[Path]:
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    listed = [sorted(file for file in folder.rglob("*") if file.suffix.lower() in EXTENSIONS) for folder in folders]
    return [file for turn in zip_longest(*listed) for file in turn if file is not None]


def _encode(file: Path, options: Options) -> bytes:
    with Image.open(file, formats=FORMATS) as opened:
        image = opened.convert("RGB")
    image.thumbnail((options.max_resolution, options.max_resolution), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=options.quality)
    return data.getvalue()


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _write_parquet(root: Path, target: Path) -> None:
    """Write what Hugging Face's `datasets` writes for an image folder: the files' bytes, and the class names in the metadata."""
    import pyarrow
    from pyarrow import parquet

    classes = sorted(folder.name for folder in root.iterdir())
    files = [(file, label) for label, name in enumerate(classes) for file in sorted((root / name).iterdir())]
    images = [{"bytes": file.read_bytes(), "path": file.name} for file, _ in files]
    features = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
    fields = [
        pyarrow.field("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])),
        pyarrow.field("label", pyarrow.int64()),
    ]
    schema = pyarrow.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})
    table = pyarrow.Table.from_pydict({"image": images, "label": [label for _, label in files]}, schema=schema)
    parquet.write_table(table, target, compression="none", row_group_size=100)


def _estimate(options: Options, needs: set[str]) -> int:
    """Return bytes that are surely enough: square images, half a byte a pixel as JPEG."""
    pixels = options.max_resolution**2
    jpegs = options.images * (pixels // 2 + 4096)
    needed = jpegs * (1 + len(needs & {"beton", "tar", "parquet"}))
    if "beton-half-raw" in needs:
        needed += jpegs // 2 + options.images * pixels * 3 // 2
    if "beton-raw" in needs:
        needed += options.images * min(RAW_SIDE, options.max_resolution) ** 2 * 3
    return needed


def _free(place: Path) -> int:
    """Return the bytes that may be used there: of the memory, at most a half of what is available."""
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        return 0
    if place == _MEMORY:
        free = min(free, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return free - _SPARE
