"""The one door for configuration: Hydra composes, pydantic validates, everything wrong is reported at once.

Importing this package imports no torch.
"""

from src.config.compose import load, load_stored
from src.config.errors import ConfigError, Problem
from src.config.schema import Config

__all__ = ["Config", "ConfigError", "Problem", "load", "load_stored"]
