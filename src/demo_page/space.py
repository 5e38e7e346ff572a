"""The folder of a Hugging Face Space."""

from collections.abc import Sequence
from pathlib import Path

from src.demo_page.words import About, Limits
from src.trained import Trained


def write_space(trained: Trained, said: About, limits: Limits, shown: Sequence[Path], folder: Path) -> Path:
    """Write it."""
    raise NotImplementedError
