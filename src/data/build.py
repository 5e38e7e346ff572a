"""From the data's configuration to sources."""

import glob
from collections.abc import Callable
from pathlib import Path
from typing import Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from src.batch import DataError, Source
from src.config import ConfigError, Problem
from src.config.data import (
    SUBSET_SIZES,
    BetonData,
    DataConfig,
    FolderData,
    ParquetData,
    StoredData,
    SyntheticData,
    TarData,
)
from src.data.sources.folder import FolderSource
from src.data.sources.synthetic import SyntheticSource
from src.data.subset import Subset, choose_subset

Split = Literal["train", "val"]
Progress = Callable[[int, int], None]
Choose = Callable[[NDArray[np.int64]], NDArray[np.int64]]
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
        case BetonData() | ParquetData() | TarData():
            return _files(config, split, choose, threads, progress)
        case SyntheticData():
            count = config.num_train if split == "train" else config.num_val
            whole = SyntheticSource(count=count, num_classes=config.num_classes, stored_size=config.stored_size, split=split)
            return Subset(whole, choose(whole.labels)) if wanted != "full" else whole
        case _:
            assert_never(config)


def stored_files(config: BetonData | ParquetData | TarData, split: Split) -> list[Path]:
    """Return the files of one split.

    Raises:
        ConfigError: if there is none.
    """
    text = str(Path(config.train_path if split == "train" else config.val_path).expanduser())
    matches = [text] if Path(text).is_file() else sorted(glob.glob(text))  # noqa: PTH207 (the pattern may be absolute)
    found = [Path(name) for name in matches if Path(name).is_file()]
    if found:
        return found
    match config:
        case BetonData():
            get = (
                "Write it with python -m src.ffcv_writer data.path=<an ImageFolder>, or set data.path to the folder that holds it."
            )
        case ParquetData():
            get = f"Set data.path (now {config.path}) to the folder of the parquet files, or data.{split}_path to a pattern with *."
        case TarData():
            get = (
                f"Set data.path (now {config.path}) to the folder of the tars, or data.{split}_path to a tar, or a pattern with *."
            )
    raise ConfigError(STAGE, [Problem(f"data.{split}_path", text, f"no such file. {get}")])


def _files(config: BetonData | ParquetData | TarData, split: Split, choose: Choose, threads: int, progress: Progress) -> Source:
    files = stored_files(config, split)
    cache_dir = Path(config.cache_dir).expanduser()
    source: Source
    try:
        match config:
            case BetonData():
                from src.data.sources.beton import BetonSource

                if len(files) > 1:
                    fix = f"matches {len(files)} files. One .beton holds a split."
                    raise ConfigError(STAGE, [Problem(f"data.{split}_path", config.train_path, fix)])
                source = BetonSource(files[0], choose=choose, num_classes=config.num_classes)
            case ParquetData():
                from src.data.sources.parquet import ParquetSource

                source = ParquetSource(files, choose=choose, cache_dir=cache_dir, threads=threads, progress=progress)
            case TarData():
                from src.data.sources.tar import TarSource

                devkit = Path(config.devkit_path).expanduser()
                source = TarSource(
                    files,
                    choose=choose,
                    cache_dir=cache_dir,
                    threads=threads,
                    progress=progress,
                    devkit=devkit if devkit.exists() else None,
                )
            case _:
                assert_never(config)
    except DataError as error:
        raise ConfigError(STAGE, [Problem(f"data.{split}_path", str(files[0].parent), str(error))]) from error
    problems = [] if tolerates(config, split) else _faults(source)
    if len(source) == 0:
        problems.append(Problem(f"data.{split}_path", str(files[0]), "holds no images."))
    if problems:
        raise ConfigError(STAGE, problems)
    return source


def tolerates(config: StoredData, split: Split) -> bool:
    """Return whether bad images are replaced: in training only, for validation's count must stay exact."""
    return split == "train" and config.bad_image == "replace"


def _faults(source: Source) -> list[Problem]:
    """Tell what is wrong with single images: the first few by name, the rest by number."""
    faults: dict[int, str] = source.faults  # type: ignore[attr-defined]
    shown = [
        Problem(source.name(index), None, f"{fault}. Mend the file, or set data.bad_image=replace (training only).")
        for index, fault in sorted(faults.items())[:_SHOWN]
    ]
    if len(faults) > _SHOWN:
        shown.append(Problem("data", None, f"{len(faults) - _SHOWN} more images are bad."))
    return shown


def _folder(config: FolderData, split: Split, choose: Choose, threads: int, progress: Progress) -> Source:
    key = f"data.{split}_path"
    root = Path(config.train_path if split == "train" else config.val_path).expanduser()
    if not root.is_dir():
        raise ConfigError(STAGE, [Problem(key, str(root), f"no such folder. {_how_to_get(config)}")])
    source = FolderSource(root, choose=choose, cache_dir=Path(config.cache_dir).expanduser(), threads=threads, progress=progress)
    if not source.classes:
        raise ConfigError(STAGE, [Problem(key, str(root), f"holds no class folders (<class>/<image>). {_how_to_get(config)}")])
    problems = source.problems(key, tolerate_bad=tolerates(config, split))
    if len(source) == 0 and not problems:
        problems = [Problem(key, str(root), "holds no images.")]
    if problems:
        raise ConfigError(STAGE, problems)
    return source


def _how_to_get(config: FolderData) -> str:
    if config.name == "fashion_mnist":
        return "Run `make data`, or python -m src.prepare fashion_mnist."
    if config.name in ("cifar10", "imagenette"):
        return f"Run python -m src.prepare {config.name}."
    return (
        f"Set data.path (now {config.path}) to the folder that holds train/<class>/ and val/<class>/, or make it of what you "
        "downloaded: python -m src.prepare source=<archive or folder>."
    )


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
