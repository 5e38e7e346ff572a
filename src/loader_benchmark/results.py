"""What the loader benchmark's passes say: paired ratios, and the circumstances without which no figure means anything."""

import platform
import statistics
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from src.loader_benchmark.catalogue import CATALOGUE, HEADLINES, OWN_PEER, RAW_SIDE, Stored, Task
from src.loader_benchmark.options import Options
from src.step_benchmark import interval_of_median

Speeds = Mapping[str, list[float]]
_PACKAGES = (
    *("torch", "torchvision", "numpy", "pillow", "pillow-simd", "nvidia-nvimgcodec-cu13", "nvidia-nvimgcodec-cu12"),
    *("nvidia-dali-cuda130", "nvidia-dali-cuda120", "ffcv", "numba", "timm", "spdl", "pyarrow"),
)
_DEFINITIONS = {
    "images_per_second": "median over the rounds; in each the clock runs from the arrival of one of an epoch's first batches to "
    "that of one of its last, in the midst of work at both ends; interval: 95 %, distribution-free "
    "(below 6 rounds their range, which is less)",
    "cpu_seconds_per_1000": "user and system time of all its processes for 1,000 images, whole epochs, median over the rounds",
    "first_batch_seconds": "from after `import torch` in a fresh process to the first batch: its own imports, compilation, opening "
    "the data (their index is there), starting workers; once",
    "peak_mib": "most of the sampled proportional set size of all its processes in its first epoch, after the first batch: "
    "of memory that no file holds, so without code and mapped data",
    "ratio": "median over the rounds of the ratio within a round",
    "raw": f"images at most {RAW_SIDE} px on the longest side",
}


def compare(speeds: Speeds) -> dict[str, Any]:
    """Compare ours and the peers, each with whom it shares the kind of storage.

    Args:
        speeds: of each contender, images a second in the same rounds.

    Returns:
        The JSON's ratios; None where a side was not measured.
    """
    paired = {
        name: {
            peer: paired_ratio(speeds[name], speeds[peer])
            for peer, entry in CATALOGUE.items()
            if not entry.ours and peer in speeds and entry.stored == CATALOGUE[name].stored
        }
        for name in speeds
        if CATALOGUE[name].ours
    }
    ours, peer = (_best(speeds, ours=ours, stored="jpeg") for ours in (True, False))

    def between(one: str | None, other: str | None) -> dict[str, Any] | None:
        return paired.get(one or "", {}).get(other or "")

    def ratio(one: str | None, other: str | None) -> float | None:
        found = between(one, other)
        return None if found is None else found["ratio"]

    return {
        "best_engine": ours,
        "best_peer": peer,
        "ratio_to_best_peer": ratio(ours, peer),
        **{key: ratio(*pair) for key, pair in HEADLINES.items()},
        "ratios": {engine: between(*pair) for engine, pair in OWN_PEER.items()},
        "paired": paired,
    }


def paired_ratio(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Return the median ratio within a round, and its interval."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return {"ratio": statistics.median(ratios), "interval": interval_of_median(ratios)}


def circumstances(options: Options, task: Task, prepared: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured, on what, with what."""
    return {
        "images": options.images,
        "images_an_epoch": task.batches * task.batch,
        **{key: prepared[key] for key in ("unique_images", "bad_images", "mean_bytes", "mean_width_height")},
        "max_resolution": options.max_resolution,
        "quality": options.quality,
        "image_size": options.image_size,
        "batch": options.batch,
        "rounds": options.pairs,
        "cpus": task.workers,
        "processor": _processor(),
        "python": platform.python_version(),
        "versions": _versions(),
        "definitions": _DEFINITIONS,
    }


def _best(speeds: Speeds, *, ours: bool, stored: Stored) -> str | None:
    able = [name for name in speeds if CATALOGUE[name].ours == ours and CATALOGUE[name].stored == stored and CATALOGUE[name].ranked]
    return max(able, key=lambda name: statistics.median(speeds[name]), default=None)


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
