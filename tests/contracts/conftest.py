"""Engines for the contract suites."""

from collections.abc import Iterator

import pytest

from src.batch import Engine, Source
from tests.contracts.engines import ENGINES, BuildEngine


@pytest.fixture(params=list(ENGINES))
def build_engine(request: pytest.FixtureRequest) -> Iterator[BuildEngine]:
    """Build engines of one kind, which are closed behind the test."""
    built: list[Engine] = []

    def build(source: Source, **options: int) -> Engine:
        built.append(ENGINES[request.param](source, **options))
        return built[-1]

    yield build
    for engine in built:
        engine.close()
