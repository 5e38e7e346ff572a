"""What tests of several rooms need."""

from collections.abc import Iterator

import pytest
from loguru import logger


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Every line that is logged during the test, as `LEVEL text`."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message).rstrip("\n")), format="{level} {message}", level="DEBUG")
    yield lines
    logger.remove(sink)
