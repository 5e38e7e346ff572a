"""Any ImageFolder: `<class>/<images>` or `{train,val,test}/<class>/<images>`; val_fraction makes a validation split of the former.

As a folder, or in a tar or tar.gz. Images keep their file names; those in folders below their class folder get the folders' names
in front, `a/b.jpg` as `a__b.jpg`.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from src.config import ConfigError, Problem
from src.config.prepare import PrepareConfig
from src.data.tar.images import some
from src.imagenet.labels.devkit import devkit_train_counts, find_devkit
from src.imagenet.pieces import Archive, Found, Split
from src.imagenet.sets.folders import ClassFolder, FolderUnit
from src.imagenet.sets.packed import Packed, PackedUnit, looks_packed
from src.imagenet.sets.split import chosen_for_val, val_count
from src.imagenet.sets.tree import STAGE, Tree, looks_like_tree, read_tree

_SHOWN = 5


def looks_like(source: Path) -> bool:
    """Tell whether it is a folder of class folders, or of splits with these, or a tar of one, by the first names."""
    return looks_packed(str(source)) if source.is_file() else looks_like_tree(str(source))


def find(source: Path, config: PrepareConfig) -> Found:
    """Find the classes, and make a split where one is asked for.

    Raises:
        ConfigError: with every problem at once.
        DataError: an archive is damaged or hostile.
    """
    if not source.is_file():
        found = found_in(read_tree(str(source)), config, layout="imagefolder", words={})
        devkit = find_devkit(source) if config.val_fraction is None else None  # what is divided anew has other numbers
        return found if devkit is None else found._replace(train_counts=partial(devkit_train_counts, devkit))
    packed = Packed(source)
    tree = read_tree(str(source), packed)
    found = found_in(tree, config, layout="imagefolder", words={})
    val = {} if config.val_fraction is None else {folder.name: _chosen(folder, config) for folder in _undivided(tree)}
    state = source.stat()
    stamp = [str(source.resolve()), state.st_size, state.st_mtime_ns, found.stamp]
    return found._replace(units=[PackedUnit(packed, tree.splits, val)], archives=[Archive(source, None, None)], stamp=stamp)


def found_in(tree: Tree, config: PrepareConfig, *, layout: str, words: Mapping[str, str]) -> Found:
    """Make units of the classes.

    Args:
        tree: what the source holds.
        config: val_fraction and split_seed count.
        layout: its name.
        words: class folder to English name.

    Raises:
        ConfigError: no validation split and none asked for, or one too many; classes that not both splits have.
    """
    problems = [*_problems_of_splits(tree, config), *_differences(tree)]
    if problems:
        raise ConfigError(STAGE, problems)
    notes = [*_notes(tree, config)]
    if config.val_fraction is None:
        units = [FolderUnit(folder, _as_split(split)) for split, folders in tree.splits.items() for folder in folders]
    else:
        units = [FolderUnit(folder, "train", _chosen(folder, config)) for folder in _undivided(tree)]
        units += [FolderUnit(folder, "test") for folder in tree.splits.get("test", ())]
    return Found(
        layout=layout,
        units=units,
        archives=(),
        stamp=stamp_of(tree, config),
        labels=lambda side: {},
        words=lambda side: words,
        listed=lambda side: None,
        notes=notes,
    )


def stamp_of(tree: Tree, config: PrepareConfig) -> object:
    """Tell this state of the folder from another: all names, and when folders changed. Files changed in place are not noticed."""
    digest = hashlib.sha256()
    for split, folders in tree.splits.items():
        for folder in folders:
            digest.update(f"{split}\0{folder.name}\0{folder.changed}\0{len(folder.names)}\0".encode())
            state = folder.names.state()
            digest.update(state["text"].tobytes())
            digest.update(state["ends"].tobytes())
    return {
        "root": os.path.realpath(tree.root),
        "names": digest.hexdigest(),
        "val_fraction": config.val_fraction,
        "split_seed": config.split_seed if config.val_fraction is not None else None,
    }


def _undivided(tree: Tree) -> Sequence[ClassFolder]:
    return tree.splits.get("all") or tree.splits.get("train", ())


def _chosen(folder: ClassFolder, config: PrepareConfig) -> NDArray[np.bool_]:
    assert config.val_fraction is not None
    names = [folder.names[index] for index in range(len(folder.names))]
    return chosen_for_val(folder.name, names, fraction=config.val_fraction, seed=config.split_seed)


def _as_split(split: Split | str) -> Split:
    assert split in ("train", "val", "test")
    return split


def _problems_of_splits(tree: Tree, config: PrepareConfig) -> list[Problem]:
    asked = config.val_fraction
    if "val" in tree.splits:
        if asked is None:
            return []
        fix = f"{tree.root} has a validation split already. Leave val_fraction out, or move that one away."
        return [Problem("val_fraction", asked, fix)]
    if asked is None:
        fix = f"{tree.root} has no validation split. Add val_fraction=0.1 to make one of a tenth of every class"
        if "test" in tree.splits:
            fix += ", or rename test to val if it shall be looked at while training"
        return [Problem("source", None, f"{fix}.")]
    single = [folder.name for folder in _undivided(tree) if not val_count(len(folder.names), asked)]
    if single:
        fix = f"{len(single)} classes have one image only, and cannot be in both train and val: {some(single)}. "
        fix += "Add images to them, or remove them."
        return [Problem("val_fraction", asked, fix)]
    return []


def _differences(tree: Tree) -> list[Problem]:
    """Compare train's classes with val's, and with test's where these have names."""
    problems = []
    train = {folder.name for folder in tree.splits.get("train", ())}
    for split in ("val", "test"):
        classes = {folder.name for folder in tree.splits.get(split, ())} - {""}
        lacking, beyond = sorted(train - classes), sorted(classes - train)
        if lacking and split == "val" and classes:
            problems.append(Problem(f"{tree.root}/val", None, f"lacks {len(lacking)} classes that train has: {some(lacking)}."))
        if beyond and train:
            problems.append(Problem(f"{tree.root}/train", None, f"lacks {len(beyond)} classes that {split} has: {some(beyond)}."))
    return problems


def _notes(tree: Tree, config: PrepareConfig) -> list[str]:
    notes = []
    if config.val_fraction is not None:
        share = f"{100 * config.val_fraction:g} % of every class"
        notes.append(f"{share} becomes val, chosen by file names and split_seed={config.split_seed}")
    if tree.strangers.count:
        notes.append(f"left out, as no images: {tree.strangers.count:,} ({tree.strangers})")
    classes = [folder.name for folder in _undivided(tree)]
    if len(classes) > 1 and all(name.isdecimal() for name in classes) and classes != sorted(classes, key=int):
        order = ", ".join(f"{name} is label {label}" for label, name in enumerate(classes[:_SHOWN]))
        notes.append(f"class folders are numbers, and labels follow their names as text: {order}, ...")
        logger.warning(f"{tree.root}: {notes[-1]}. Label k is not class k: name folders 01, 02, ... if that is not what you want.")
    return notes
