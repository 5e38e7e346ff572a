"""A model that the page can show."""

from pathlib import Path

import pytest

from tests.shown_model import write_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a small model."""
    return write_run(tmp_path_factory.mktemp("demo") / "a_run")
