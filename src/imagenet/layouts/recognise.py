"""Which layout a source has. Every layout is a module with `looks_like` and `find`, imported when it is asked."""

import os
from pathlib import Path
from typing import NamedTuple, Protocol, assert_never, get_args

from src.batch import DataError
from src.config import ConfigError, Problem
from src.config.prepare import LayoutName, PrepareConfig
from src.imagenet.pieces import Found

STAGE = "the source"
# In the order of being asked. An ImageFolder comes last: nearly every tree is one.
LAYOUTS: dict[LayoutName, str] = {
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
assert {*LAYOUTS, "auto"} == {*get_args(LayoutName)}
_SHOWN = 8
_CONTROL = ".aria2"  # beside a file that aria2 has not finished, and whose size is the whole one's from the start


class Layout(Protocol):
    """What a layout's module has."""

    def looks_like(self, source: Path) -> bool:
        """Tell by names alone, quickly, whether this may be it. Raises nothing."""

    def find(self, source: Path, config: PrepareConfig) -> Found:
        """Look closer, and raise ConfigError with every problem."""


class _Tried(NamedTuple):
    """A layout that the source looks like: what it found, or why it is not whole."""

    name: str
    result: Found | ConfigError


def find_layout(source: Path, config: PrepareConfig) -> Found:
    """Find out what the source is. Where it looks like several layouts, the first that is whole is taken, and the others are named.

    Args:
        source: an archive, or the folder that holds archives or images.
        config: `layout` overrides the choice.

    Raises:
        ConfigError: nothing is there, nothing is recognised, what is recognised lacks something, or a layout is there twice, in
            an archive and unpacked; every problem at once.
    """
    if not source.exists():
        fix = "is not there. Name what was downloaded: an archive, or the folder that holds archives or images."
        raise ConfigError(STAGE, [Problem("source", str(source), fix)])
    names = [config.layout] if config.layout != "auto" else list(LAYOUTS)
    seen = [(name, module) for name in names for module in modules_of(name) if module.looks_like(source)]
    if not seen and config.layout != "auto":
        modules = modules_of(config.layout)
        seen = [(config.layout, modules[-1] if source.is_file() else modules[0])]
    if not seen:
        raise ConfigError(STAGE, [Problem("source", str(source), unknown(source))])
    if not {name for name, _ in seen} <= {"official", "imagefolder"}:  # archives left beside what became a folder are common
        seen = [(name, module) for name, module in seen if name != "imagefolder"]
    return _chosen([_try(name, module, source, config) for name, module in seen], source)


def modules_of(layout: LayoutName) -> tuple[Layout, ...]:
    """Import what knows a layout: of folders first, of archives last."""
    match layout:
        case "official":
            from src.imagenet.layouts import official

            return (official,)
        case "kaggle":
            from src.imagenet.layouts import kaggle, zipped

            return (kaggle, zipped)
        case "torrent":
            from src.imagenet.layouts import torrent

            return (torrent,)
        case "folders":
            from src.imagenet.layouts import folders

            return (folders,)
        case "huggingface":
            from src.imagenet.layouts import huggingface

            return (huggingface,)
        case "imagenette":
            from src.imagenet.layouts import imagenette

            return (imagenette,)
        case "cifar10":
            from src.imagenet.layouts import cifar10

            return (cifar10,)
        case "fashion_mnist":
            from src.imagenet.layouts import fashion_mnist

            return (fashion_mnist,)
        case "imagefolder":
            from src.imagenet.layouts import imagefolder

            return (imagefolder,)
        case "auto":
            return ()
        case _:
            assert_never(layout)


def unknown(source: Path) -> str:
    """Say what is there, and what each layout needs."""
    needs = "".join(f"\n    {name}: {need}" for name, need in LAYOUTS.items())
    return f"no known layout. There {names_there(source)}. What is understood (layout=...):{needs}"


def names_there(source: Path) -> str:
    """List the first few names in a folder, for a message: "are a, b/, ..."."""
    try:
        if not source.is_dir():
            return f"is one file of {source.stat().st_size:,} bytes"
        with os.scandir(source) as entries:
            names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        return f"is what cannot be read ({error.strerror})"
    if not names:
        return "is nothing"
    return "are " + ", ".join(names[:_SHOWN]) + (f", ... ({len(names):,} names)" if len(names) > _SHOWN else "")


def _try(name: str, module: Layout, source: Path, config: PrepareConfig) -> _Tried:
    try:
        return _Tried(name, module.find(source, config))
    except ConfigError as error:
        return _Tried(name, error)
    except DataError as error:
        return _Tried(name, ConfigError(STAGE, [Problem("source", str(source), str(error).removeprefix(f"{source} "))]))
    except OSError as error:
        fix = f"cannot be read ({error.strerror})."
        return _Tried(name, ConfigError(STAGE, [Problem("source", str(error.filename or source), fix)]))


def _chosen(tried: list[_Tried], source: Path) -> Found:
    whole = [(name, result) for name, result in tried if isinstance(result, Found)]
    if not whole:
        errors = [
            result for name, result in tried if isinstance(result, ConfigError) and (name != "imagefolder" or len(tried) == 1)
        ]
        raise ConfigError(errors[0].stage, [problem for error in errors for problem in error.problems])
    name, found = whole[0]
    if sum(other == name for other, _ in whole) > 1:
        fix = f"holds layout={name} twice, as an archive and unpacked. Name one of them: there {names_there(source)}."
        raise ConfigError(STAGE, [Problem("source", str(source), fix)])
    unfinished = [archive.path for archive in found.archives if Path(f"{archive.path}{_CONTROL}").exists()]
    if unfinished:
        fix = f"is not downloaded yet: aria2's {_CONTROL} file lies beside it. Go on with the download, or delete that file."
        raise ConfigError(STAGE, [Problem("source", str(path), fix) for path in unfinished])
    notes = [f"looks like layout={other} too, which is whole: {name} is taken" for other, _ in whole[1:]]
    partly = [other for other, result in tried if isinstance(result, ConfigError)]
    notes += [f"looks like layout={other} too, which is not whole: {name} is taken" for other in partly]
    return found._replace(notes=[*found.notes, *notes])
