"""From seconds to the figures that `python -m src.benchmark prepare` tells."""

import statistics
import tempfile
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from src.prepare_benchmark.options import Options

FULL_IMAGES = 1_281_167 + 50_000  # train and val
FULL_BYTES = 147_897_477_120 + 6_744_924_160  # of their official tars
_DISKS = {"hard disk, 150 MB/s": 150e6, "SATA SSD or gp3 of 500 MB/s": 500e6, "NVMe, 2 GB/s": 2e9}


def figures_of(
    options: Options, workers: int, mean_bytes: float, extraction: dict[str, list[float]], verification: dict[str, list[float]]
) -> dict[str, Any]:
    """Make figures of seconds, and tell them on stderr: medians, ranges, ratios within rounds, hours of the full data set."""
    figures: dict[str, Any] = {
        "benchmark": "prepare",
        "images": options.images,
        "mean_bytes": round(mean_bytes),
        "workers": workers,
        "pairs": options.pairs,
        "file_system": str(options.folder or tempfile.gettempdir()),
    }
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for what, seconds in (("extraction", extraction), ("verification", verification)):
        ours, *others = seconds
        figures[what] = {
            "images_per_second": {name: spread([options.images / each for each in took]) for name, took in seconds.items()},
            "times_as_fast_as": {
                name: spread([theirs / mine for theirs, mine in zip(seconds[name], seconds[ours], strict=True)]) for name in others
            },
        }
        for name, rate in figures[what]["images_per_second"].items():
            ratio = figures[what]["times_as_fast_as"].get(name)
            beside = "" if ratio is None else f"; {ours} is {ratio['median']:.2f} times as fast ({_range(ratio)})"
            console.print(f"{what:<13} {name:<22} {rate['median']:8,.0f} images/s ({_range(rate, 0)}){beside}")
    figures["full_imagenet"] = _estimate(figures, mean_bytes)
    told = figures["full_imagenet"]
    console.print(
        f"all of ImageNet ({FULL_IMAGES:,} images, {FULL_BYTES / 1e9:.0f} GB of tars): "
        f"extraction {told['extraction_hours']:.2f} h, "
        f"level 3 {told['verification_hours']:.2f} h, where the disk is faster. Reading once takes at least: "
        + ", ".join(f"{disk}: {hours:.2f} h" for disk, hours in told["hours_to_read_once"].items())
    )
    return figures


def _estimate(figures: dict[str, Any], mean_bytes: float) -> dict[str, Any]:
    """Extraction by bytes (the larger of that and by files), verification by files: hours, as if the disk were no limit."""
    extracted = figures["extraction"]["images_per_second"]["prepare"]["median"]
    by_files, by_bytes = FULL_IMAGES / extracted, FULL_BYTES / (extracted * mean_bytes)
    verified = figures["verification"]["images_per_second"]["verify level=3"]["median"]
    return {
        "images": FULL_IMAGES,
        "bytes": FULL_BYTES,
        "extraction_hours": max(by_files, by_bytes) / 3600,
        "verification_hours": FULL_IMAGES / verified / 3600,
        "hours_to_read_once": {name: FULL_BYTES / rate / 3600 for name, rate in _DISKS.items()},
        "assumes": "as many workers, images like these, and a disk that keeps up; extraction reads once and writes once, "
        "a level 3 reads once",
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _range(values: dict[str, float], digits: int = 2) -> str:
    return f"{values['low']:,.{digits}f} to {values['high']:,.{digits}f}"
