"""The one door for configuration: Hydra composes, pydantic validates, everything wrong is reported at once.

Importing this package imports no torch.
"""

from src.config.compose import load
from src.config.errors import ConfigError, Problem
from src.config.schema import Config
from src.config.stored import load_stored

__all__ = ["Config", "ConfigError", "Problem", "load", "load_stored"]
