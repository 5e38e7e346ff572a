"""Is a data set what it should be? Four levels of looking, one report."""

from src.imagenet.verify.levels import verify
from src.imagenet.verify.report import Report

__all__ = ["Report", "verify"]
