"""Which layout a source has. Every layout is a module with `looks_like` and `find`, imported when it is asked."""

import importlib.util
import os
from pathlib import Path
from typing import Protocol, cast

from src.config import ConfigError, Problem
from src.config.prepare import PrepareConfig
from src.imagenet.pieces import Found

STAGE = "the source"
# In the order of being asked. An ImageFolder comes last: nearly every tree is one.
LAYOUTS = {
    "official": "ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz in one folder",
    "kaggle": "ILSVRC/Data/CLS-LOC/{train,val}, with LOC_val_solution.csv or ILSVRC/Annotations/CLS-LOC/val/*.xml; or Kaggle's zip",
    "torrent": "ILSVRC2017_CLS-LOC.tar.gz",
    "folders": "train/<wnid>/*.JPEG and a flat val/, with ILSVRC2012_devkit_t12.tar.gz or a list of the validation classes",
    "huggingface": "parquet shards, train-*.parquet and validation-*.parquet",
    "imagenette": "imagenette2*.tgz or imagewoof2*.tgz, or what it unpacks to",
    "cifar10": "cifar-10-python.tar.gz or cifar-10-binary.tar.gz, or what it unpacks to",
    "fashion_mnist": "the four files of Fashion-MNIST, train-images-idx3-ubyte.gz and so on",
    "imagefolder": "<class>/<images>, or train/ and val/ of them",
}
_MODULES = {"kaggle": ("kaggle", "zipped")}  # a layout that comes in more than one form
_SHOWN = 8


class Layout(Protocol):
    """What a layout's module has."""

    def looks_like(self, source: Path) -> bool:
        """Tell by names alone, quickly, whether this may be it. Raises nothing."""

    def find(self, source: Path, config: PrepareConfig) -> Found:
        """Look closer, and raise ConfigError with every problem."""


def find_layout(source: Path, config: PrepareConfig) -> Found:
    """Find out what the source is.

    Args:
        source: an archive, or the folder that holds archives or images.
        config: `layout` overrides the choice.

    Raises:
        ConfigError: nothing is there, nothing is recognised, or what is recognised lacks something; every problem at once.
    """
    if not source.exists():
        fix = "is not there. Name what was downloaded: an archive, or the folder that holds archives or images."
        raise ConfigError(STAGE, [Problem("source", str(source), fix)])
    if config.layout != "auto":
        return _module(config.layout, source).find(source, config)
    seen = [name for name in LAYOUTS if _looks_like(name, source)]
    if not seen:
        raise ConfigError(STAGE, [Problem("source", str(source), unknown(source))])
    found = _module(seen[0], source).find(source, config)
    others = [name for name in seen[1:] if name != "imagefolder"]
    note = f"looks like layout={' and '.join(others)} too; {seen[0]} is taken"
    return found._replace(notes=[*found.notes, note]) if others else found


def unknown(source: Path) -> str:
    """Say what is there, and what each layout needs."""
    needs = "".join(f"\n    {name}: {need}" for name, need in LAYOUTS.items())
    return f"no known layout. There {names_there(source)}. What is understood (layout=...):{needs}"


def names_there(source: Path) -> str:
    """List the first few names in a folder, for a message: "are a, b/, ..."."""
    if not source.is_dir():
        return f"is one file of {source.stat().st_size:,} bytes"
    with os.scandir(source) as entries:
        names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in entries if not entry.name.startswith("."))
    if not names:
        return "is nothing"
    return "are " + ", ".join(names[:_SHOWN]) + (f", ... ({len(names):,} names)" if len(names) > _SHOWN else "")


def _looks_like(name: str, source: Path) -> bool:
    return any(module.looks_like(source) for module in _modules(name))


def _module(name: str, source: Path) -> Layout:
    modules = _modules(name)
    return next((module for module in modules if module.looks_like(source)), modules[0])


def _modules(name: str) -> list[Layout]:
    names = [f"src.imagenet.layouts.{module}" for module in _MODULES.get(name, (name,))]
    return [cast(Layout, importlib.import_module(module)) for module in names if importlib.util.find_spec(module)]
