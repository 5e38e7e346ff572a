"""What the tests of tracking share."""

from collections.abc import Callable

import pytest

from src.config import Config, load


@pytest.fixture(scope="session")
def configure() -> Callable[..., Config]:
    """Compose a small configuration with overrides."""

    def make(*overrides: str) -> Config:
        return load(["data=synthetic", "model=small_resnet", *overrides])

    return make
