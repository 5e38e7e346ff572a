"""Every engine, built the same way, and sources to try them with: a new engine joins ENGINES and passes the suites."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from src.batch import BatchPlan, Encoded, Engine, Source
from src.data.engines.torchvision import TorchvisionEngine
from src.data.plan import CropLaw, random_resized_crops, sample_keys
from src.data.sources.folder import FolderSource
from src.draws import Purpose, uniform
from tests.pictures import write_files

LAW = CropLaw((0.08, 1.0), (3 / 4, 4 / 3), 0.5)
BuildEngine = Callable[..., Engine]


CPU = torch.device("cpu")


def _torchvision(source: Source, *, threads: int = 2, prefetch: int = 2, **more: Any) -> Engine:
    return TorchvisionEngine(source, device=CPU, threads=threads, prefetch=prefetch, **more)


def _nvimgcodec(source: Source, *, threads: int = 2, prefetch: int = 2, **more: Any) -> Engine:
    pytest.importorskip("nvidia.nvimgcodec", reason="nvImageCodec is not installed: pip install -e '.[nvimgcodec]'")
    from src.data.engines.nvimgcodec import NvImageCodecEngine

    return NvImageCodecEngine(source, device=CPU, threads=threads, prefetch=prefetch, **more)


def _dali(source: Source, *, threads: int = 2, prefetch: int = 2, **more: Any) -> Engine:
    pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install -e '.[dali]'")
    from src.data.engines.dali import DaliEngine

    return DaliEngine(source, device=CPU, threads=threads, prefetch=prefetch, **more)


def _ffcv(source: Source, *, threads: int = 2, prefetch: int = 2, **more: Any) -> Engine:
    from src.data.engines.ffcv import FfcvEngine, why_not_importable
    from tests.contracts.engine_ffcv import converted

    if (reason := why_not_importable()) is not None:
        pytest.skip(reason)
    if isinstance(source, Watched):
        pytest.skip("FFCV reads the file itself, which a source cannot count or delay: see tests/unit/data/test_ffcv_engine.py")
    with converted(source) as beton:
        return FfcvEngine(beton, device=CPU, threads=threads, prefetch=prefetch, **more)


ENGINES: dict[str, BuildEngine] = {"torchvision": _torchvision, "nvimgcodec": _nvimgcodec, "dali": _dali, "ffcv": _ffcv}


class Closeness(NamedTuple):
    """How much an image may differ from the reference, in grey levels.

    Attributes:
        mean: of all differences.
        inside: the largest, but for the outermost pixels.
        anywhere: the largest.
    """

    mean: float
    inside: float
    anywhere: float


# Of the engines that are not exact, by their filter. Noise of 100 grey levels is the hardest; photographs stay below a mean of 0.3.
CLOSENESS = {
    ("dali", "bilinear"): Closeness(0.5, 1, 20),  # DALI repeats the box's border, where torch leaves it out
    ("dali", "bicubic"): Closeness(1.5, 24, 24),  # torch rounds and clips between the two directions, DALI only at the end
    # OpenCV does not antialias a box that is to grow in either direction; bit for bit in tests/unit/data/test_ffcv_engine.py.
    ("ffcv", "bilinear"): Closeness(13, 255, 255),
    ("ffcv", "bicubic"): Closeness(13, 255, 255),
}


def folder_of(root: Path, files: Mapping[str, bytes], cache_dir: Path) -> FolderSource:
    """Write and open a folder; the order is that of the sorted names."""
    write_files(root, files)
    return open_folder(root, cache_dir)


def open_folder(root: Path, cache_dir: Path) -> FolderSource:
    """Open all of a folder."""
    return FolderSource(
        root, choose=lambda labels: np.arange(len(labels)), cache_dir=cache_dir, threads=2, progress=lambda done, total: None
    )


def plan_of(source: Source, ids: Iterable[int], seed: int = 0) -> BatchPlan:
    """Plan these samples with boxes and flips as for training."""
    array = np.array(list(ids), np.int64)
    keys = sample_keys(seed, 0, array)
    return BatchPlan(array, keys, random_resized_crops(keys, source.sizes[array], LAW), uniform(keys, Purpose.FLIP) < 0.5)


class Watched:
    """A source that counts what is read from it, slowly if wanted.

    Args:
        source: the real one.
        delay: seconds that reading a sample takes longer.
    """

    def __init__(self, source: Source, delay: Callable[[int], float] = lambda index: 0.0) -> None:
        self._source, self._delay = source, delay
        self.classes, self.labels, self.sizes = source.classes, source.labels, source.sizes
        self.reads = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._source)

    def read(self, index: int) -> Encoded:
        time.sleep(self._delay(index))
        encoded = self._source.read(index)
        with self._lock:
            self.reads += 1
        return encoded

    def name(self, index: int) -> str:
        return self._source.name(index)

    def wait_for(self, reads: int, seconds: float = 20.0) -> None:
        """Wait until so many images have been read, and a moment longer, in which there could be more."""
        deadline = time.monotonic() + seconds
        while self.reads < reads and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(0.05)


def pixels_of(batches: Iterable[Any]) -> list[NDArray[np.uint8]]:
    """Copy every batch's pixels out, as the next batch may take their place."""
    return [batch.images.numpy().copy() for batch in batches]
