"""How fast the exported forms are on this CPU, beside the model itself."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from src.exporting.check import Runs
from src.exporting.latency import describe_cpu, measure

BATCHES = (1, 32)
_SECONDS = 8.0  # of measuring, a batch size
_FEWEST, _MOST = 5, 200  # rounds
_DIGITS = 4


def speeds(forms: Mapping[str, Runs], image_size: int) -> dict[str, Any]:
    """Measure a forward of one image and of 32, in turn.

    Args:
        forms: by name; the first is what the others are compared with.
        image_size: S.

    Returns:
        cpu, threads, and by batch size ("batch_1", ...) and form: median_ms, p95_ms, ratio, rounds.
    """
    told: dict[str, Any] = {"cpu": describe_cpu(), "threads": torch.get_num_threads()}
    for size in BATCHES:
        images = torch.randn(size, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
        calls = {name: partial(form, images) for name, form in forms.items()}
        start = time.perf_counter()
        for call in calls.values():
            call()  # also what a first call prepares: not counted
        took = time.perf_counter() - start
        rounds = max(_FEWEST, min(_MOST, int(_SECONDS / took)))
        measured = measure(calls, warm_up=1, rounds=rounds)
        told[f"batch_{size}"] = {
            name: {key: round(value, _DIGITS) for key, value in taken._asdict().items()} for name, taken in measured.items()
        }
    return told
