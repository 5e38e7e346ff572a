"""What the tests of tracking share."""

from collections.abc import Callable, Iterator

import pytest
from loguru import logger

from src.config import Config, load


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Every line that is logged during the test, as `LEVEL text`."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message).rstrip("\n")), format="{level} {message}", level="DEBUG")
    yield lines
    logger.remove(sink)


@pytest.fixture(scope="session")
def configure() -> Callable[..., Config]:
    """Compose a small configuration with overrides."""

    def make(*overrides: str) -> Config:
        return load(["data=synthetic", "model=small_resnet", *overrides])

    return make
