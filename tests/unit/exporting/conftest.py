"""Exports in this process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger

from src.config.export import load_export
from src.exporting.run import export
from tests.unit.exporting.small_runs import SMALL, Exports, write_run


@pytest.fixture(scope="module")
def run_export() -> Iterator[Exports]:
    """Export as the door does; return its result. Without latency, which takes seconds."""
    threads = torch.get_num_threads()

    def run(checkpoint: Path, target: Path, *more: str) -> dict[str, Any]:
        keys, others = load_export([f"checkpoint={checkpoint}", f"target={target}", "latency=false", *more])
        return export(keys, others)

    yield run
    torch.set_num_threads(threads)
    logger.remove()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, run_export: Exports) -> tuple[Path, dict[str, Any]]:
    """The folder of a small model in every exact format, and the door's result."""
    room = tmp_path_factory.mktemp("exported")
    result = run_export(write_run(room / "small", *SMALL), room / "out", "check_images=all", "license=mit")
    return room / "out", result
