"""What the tests of the training room share: what was said, a configuration from words, and a state small enough to save often."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from loguru import logger

from src.config import Config, load

MakeState = Callable[..., dict[str, Any]]
Configure = Callable[..., Config]


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Every line that is logged during the test, as `LEVEL text`."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message).rstrip("\n")), format="{level} {message}", level="DEBUG")
    yield lines
    logger.remove(sink)


@pytest.fixture(scope="session")
def configure() -> Configure:
    """Compose a configuration of synthetic images and the small ResNet, with overrides."""

    def make(*overrides: str) -> Config:
        return load(["data=synthetic", "model=small_resnet", "model.depth=8", "model.width=4", *overrides])

    return make


@pytest.fixture(scope="session")
def make_state() -> MakeState:
    """Make a checkpoint's content whose tensors tell the step."""

    def make(step: int, **more: Any) -> dict[str, Any]:
        weights = {"0.weight": torch.arange(12.0).view(3, 4) * step, "1.num_batches_tracked": torch.tensor(step)}
        optimizer = {"state": {0: {"momentum_buffer": torch.full((3, 4), float(step))}}, "param_groups": [{"lr": 0.1 * step}]}
        return {"schema": 1, "step": step, "model": weights, "optimizer": optimizer, "history": [], **more}

    return make
