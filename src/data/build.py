"""From the data's configuration to sources and engines."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, assert_never

import numpy as np
import torch
from numpy.typing import NDArray

from src.batch import Engine, Source
from src.config import ConfigError, Problem
from src.config.data import SUBSET_SIZES, DataConfig, FolderData, SyntheticData
from src.data.sources.folder import FolderSource
from src.data.sources.synthetic import SyntheticSource
from src.data.subset import Subset, choose_subset

Split = Literal["train", "val"]
Progress = Callable[[int, int], None]
STAGE = "the data"
_SHOWN = 5


def build_sources(config: DataConfig, *, threads: int, progress: Progress) -> tuple[Source, Source]:
    """Open train and val, with their indexes built where they were missing.

    Raises:
        ConfigError: with every problem of both splits, and every difference between their classes.
    """
    sources: dict[Split, Source] = {}
    problems: list[Problem] = []
    splits: tuple[Split, Split] = ("train", "val")
    for split in splits:
        try:
            sources[split] = build_source(config, split, threads=threads, progress=progress)
        except ConfigError as error:
            problems += error.problems
    if len(sources) == 2:
        problems += _class_differences(sources["train"].classes, sources["val"].classes)
    if problems:
        raise ConfigError(STAGE, problems)
    return sources["train"], sources["val"]


def build_source(config: DataConfig, split: Split, *, threads: int, progress: Progress) -> Source:
    """Open one split, cut down to its subset.

    Raises:
        ConfigError: naming what is missing or bad.
    """
    key = "data.subset" if split == "train" else "data.val_subset"
    wanted = config.subset if split == "train" else config.val_subset

    def choose(labels: NDArray[np.int64]) -> NDArray[np.int64]:
        return _chosen(labels, wanted, key, split)

    match config:
        case FolderData():
            return _folder(config, split, choose, threads, progress)
        case SyntheticData():
            count = config.num_train if split == "train" else config.num_val
            whole = SyntheticSource(count=count, num_classes=config.num_classes, stored_size=config.stored_size, split=split)
            return Subset(whole, choose(whole.labels)) if wanted != "full" else whole
        case _:
            assert_never(config)


def build_engine(config: DataConfig, source: Source, *, device: torch.device, threads: int) -> Engine:
    """Build the engine that decodes this source for this rank."""
    match config.engine:
        case "torchvision":
            from src.data.engines.torchvision import TorchvisionEngine

            return TorchvisionEngine(source, device=device, threads=threads, prefetch=config.prefetch)
        case _:
            assert_never(config.engine)


def _folder(
    config: FolderData, split: Split, choose: Callable[[NDArray[np.int64]], NDArray[np.int64]], threads: int, progress: Progress
) -> Source:
    key = f"data.{split}_path"
    root = Path(config.train_path if split == "train" else config.val_path).expanduser()
    if not root.is_dir():
        raise ConfigError(STAGE, [Problem(key, str(root), f"no such folder. {_how_to_get(config)}")])
    source = FolderSource(root, choose=choose, cache_dir=Path(config.cache_dir).expanduser(), threads=threads, progress=progress)
    if not source.classes:
        raise ConfigError(STAGE, [Problem(key, str(root), f"holds no class folders (<class>/<image>). {_how_to_get(config)}")])
    problems = source.problems(key)
    if len(source) == 0 and not problems:
        problems = [Problem(key, str(root), "holds no images.")]
    if problems:
        raise ConfigError(STAGE, problems)
    return source


def _how_to_get(config: FolderData) -> str:
    if config.name == "fashion_mnist":
        return "Run `make data`, or python -m src.prepare fashion_mnist."
    return f"Set data.path (now {config.path}) to the folder that holds train/<class>/ and val/<class>/."


def _chosen(labels: NDArray[np.int64], wanted: str | int, key: str, split: Split) -> NDArray[np.int64]:
    if not len(labels):
        return np.arange(0)  # an empty folder is reported as such, not as too small a one
    if isinstance(wanted, int):
        if wanted > len(labels):
            raise ConfigError(
                STAGE, [Problem(key, wanted, f"{split} has {len(labels):,} images. Set {key}={len(labels)} or less, or full.")]
            )
        return choose_subset(labels, wanted)
    # A named size is "at most": debug=fast works on small sets too.
    size = {str(name): count for name, count in SUBSET_SIZES.items()}.get(wanted, len(labels))
    return choose_subset(labels, size) if size < len(labels) else np.arange(len(labels))


def _class_differences(train: tuple[str, ...], val: tuple[str, ...]) -> list[Problem]:
    problems = []
    for key, has, lacks in (("data.val_path", train, val), ("data.train_path", val, train)):
        missing = [name for name in has if name not in set(lacks)]
        if missing:
            listed = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
            other = "train" if key == "data.val_path" else "val"
            fix = f"lacks {len(missing)} class folders that {other} has: {listed}. Labels would not mean the same; make them agree."
            problems.append(Problem(key, None, fix))
    return problems
