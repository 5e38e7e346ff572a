"""From what was extracted to the splits: classes of flat validation images, checks, and the renames that make all of it visible.

Everything here can be killed between any two steps and done again. A split gets its name only when every file of it has its place
and lasts on the disk.
"""

import os
import shutil
import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from loguru import logger

from src.config import ConfigError, Problem
from src.data.tar.images import some
from src.files import remove_leftovers, sync_folder, write_atomically
from src.imagenet.classes import CLASSES_FILE, write_classes
from src.imagenet.journal import Journal
from src.imagenet.manifest import FOLDER, line_of, read_manifest, write_manifest
from src.imagenet.pieces import Found, Labels
from src.imagenet.rows import Rows, by_folder, remove_tree, remove_unknown
from src.imagenet.space import StoppedError, sync_file_system
from src.imagenet.train_counts import write_train_counts
from src.imagenet.writing import MODIFIED_NS, STAGE, check_part, make_folder

SPLITS = ("train", "val", "test")
DIFFERENCES = "differences.tsv"


class Move(NamedTuple):
    """A flat validation image, and its class's folder: paths below the tree."""

    before: str
    folder: str
    after: str


def arrange(target: Path, found: Found, rows: Rows, journal: Journal) -> None:
    """Put everything in its place, and publish it.

    Raises:
        ConfigError: an image without a class, classes that differ between splits, a split that stands in the target already.
        StoppedError: what was extracted is not there any more.
        OSError: the disk's reason.
    """
    root = target / FOLDER
    if "publish" not in journal.state.stages:
        extracted = rows.sorted()
        side = [row for row in extracted if row.startswith(b"side/")]
        placed, moves = _placed([row for row in extracted if not row.startswith(b"side/")], found, root / "side")
        classes = _compared(target, placed)
        _compare_with_lists(target, placed, found, root / "side")
        splits = [split for split in SPLITS if any(row.startswith(f"{split}/".encode()) for row in placed)]
        _refuse_published(target, splits)
        _move(root / "tree", moves)
        remove_unknown(target, sorted([*placed, *side]))
        _settle_times(root / "tree", placed)
        write_manifest(target, _with_earlier(target, placed, splits))
        write_classes(target / CLASSES_FILE, classes, found.words(root / "side"))
        if "train" in splits:
            write_train_counts(target, found.train_counts() if found.train_counts is not None else {})
        elif found.train_counts is not None:  # of the training images that another source gave
            write_train_counts(target, found.train_counts())
        sync_file_system(target)
        counts = {split: sum(row.startswith(f"{split}/".encode()) for row in placed) for split in splits}
        journal.note_stage("publish", counts=counts)
    _publish(target, list(journal.state.stages["publish"]["counts"]))
    journal.note_stage("arrange", counts=journal.state.stages["publish"]["counts"])


def clear_away(target: Path) -> None:
    """Delete what only the preparation needed. Never a reason to fail.

    The manifest, the journal and the report stay.
    """
    for folder in (target, target / FOLDER):
        remove_leftovers(folder)
    for name in ("tree", "side", "rows"):
        try:
            remove_tree(target / FOLDER / name)
        except OSError as error:
            logger.warning(f"{target / FOLDER / name} cannot be deleted ({error.strerror}): it is needed no more")


def remove_downloads(target: Path) -> None:
    """Delete what was downloaded into the target's own folder. Never a reason to fail."""
    shutil.rmtree(target / FOLDER / "downloads", ignore_errors=True)


def _placed(rows: Sequence[bytes], found: Found, side: Path) -> tuple[list[bytes], list[Move]]:
    """Give every row its final path. Returns the rows, sorted, and what must be moved."""
    flat = [row for row in rows if row.count(b"/", 0, row.index(b"\t")) == 1]
    loose = [row for row in flat if row.startswith(b"train/")]
    if loose:
        raise ConfigError(STAGE, [Problem("source", None, f"no class is known of {some(map(_path, loose))}.")])
    flat = [row for row in flat if row.startswith(b"val/")]
    if not flat:
        return list(rows), []
    labels = found.labels(side)
    _refuse_unknown(flat, labels)
    moves, moved = [], []
    for row in flat:
        before = _path(row)
        name = before.rpartition("/")[2]
        folder = labels[name.rpartition(".")[0]]
        check_part(folder, "folder")
        move = Move(before, f"val/{folder}", f"val/{folder}/{name}")
        moves.append(move)
        moved.append(os.fsencode(move.after) + row[row.index(b"\t") :])
    gone = set(flat)
    placed = sorted([*(row for row in rows if row not in gone), *moved])
    twice = [_path(one) for one, other in pairwise(placed) if _path(one) == _path(other)]
    if twice:
        raise ConfigError(STAGE, [Problem("source", None, f"is there both flat and in a class folder: {some(twice)}.")])
    return placed, moves


def _refuse_unknown(flat: Sequence[bytes], labels: Labels) -> None:
    stems = {_path(row).rpartition("/")[2].rpartition(".")[0] for row in flat}
    unknown, lacking = sorted(stems - labels.keys()), sorted(labels.keys() - stems)
    if unknown:
        fix = f"{len(unknown):,} of {len(stems):,} validation images have no class in the source's lists: {some(unknown)}. "
        fix += "Add the list that belongs to them (devkit, LOC_val_solution.csv or Annotations)."
        raise ConfigError(STAGE, [Problem("source", None, fix)])
    if lacking:
        logger.warning(f"{len(lacking):,} validation images that the source's lists tell of are not there: {some(lacking)}")


def _compared(target: Path, placed: Sequence[bytes]) -> list[str]:
    """Return all classes, which train and val must share: those extracted, or those that stand in the target from before."""
    found: dict[str, set[str]] = {"train": set(), "val": set()}
    for folder, _ in by_folder(placed):
        split, _, name = folder.partition("/")
        if name and split in found:
            found[split].add(name)
    for split, names in found.items():
        if not names and (target / split).is_dir():
            with os.scandir(target / split) as entries:
                names |= {entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
    train, val = found["train"], found["val"]
    if train and val and train != val:
        fixes = []
        for lacking, split, other in ((train - val, "val", "train"), (val - train, "train", "val")):
            if lacking:
                fixes.append(f"{split} lacks {len(lacking):,} classes that {other} has: {some(sorted(lacking))}")
        fix = f"{'; '.join(fixes)}. Their labels would differ. Complete the source."
        raise ConfigError(STAGE, [Problem("source", None, fix)])
    return sorted(train | val)


def _compare_with_lists(target: Path, placed: Sequence[bytes], found: Found, side: Path) -> None:
    """Say what the source's own lists name and the source lacks, and the other way round: the whole lists stand in a file."""
    listed = found.listed(side)
    path = target / FOLDER / DIFFERENCES
    path.unlink(missing_ok=True)
    if listed is None:
        return
    there = {_path(row) for row in placed}
    splits = {name.partition("/")[0] for name in listed}
    missing = sorted(listed - there)
    beyond = sorted(name for name in there - listed if name.partition("/")[0] in splits)
    if not missing and not beyond:
        logger.info(f"all {len(listed):,} images of the source's own lists are there, and no others")
        return
    lines = [f"missing\t{name}\n" for name in missing] + [f"beyond\t{name}\n" for name in beyond]
    write_atomically(path, "".join(lines).encode("utf-8", "surrogateescape"))
    for what, names in (("missing though the source's lists name them", missing), ("beyond the source's lists", beyond)):
        if names:
            logger.warning(f"{len(names):,} images are {what}: {some(names)}. All of them: {path}")


def _refuse_published(target: Path, splits: Sequence[str]) -> None:
    fix = f"stands in {target} already, and is never written over. Move it away, or choose another target."
    problems = [Problem(split, None, fix) for split in splits if os.path.lexists(target / split)]
    if not splits:
        problems.append(Problem("source", None, "no image was found in it."))
    if problems:
        raise ConfigError(STAGE, problems)


def _move(tree: Path, moves: Iterable[Move]) -> None:
    """Move flat images into their class folders. What is not there was moved before, or is missed by the check that follows."""
    root = os.fspath(tree)
    made: set[str] = set()
    for move in moves:
        if move.folder not in made:
            make_folder(f"{root}/{move.folder}")
            made.add(move.folder)
        try:
            os.replace(f"{root}/{move.before}", f"{root}/{move.after}")
        except FileNotFoundError:
            continue


def _settle_times(tree: Path, placed: Iterable[bytes]) -> None:
    """Give each folder a time that tells its content: the trainer's index knows by it whether the folder is still the same."""
    sums: dict[str, int] = {}
    for row in placed:
        folder = _path(row).rpartition("/")[0]
        sums[folder] = zlib.crc32(row, sums.get(folder, 0))
    for split in SPLITS:
        if (tree / split).is_dir():
            os.utime(tree / split, ns=(MODIFIED_NS, MODIFIED_NS))
    for folder, crc in sums.items():
        when = MODIFIED_NS + crc % 10**9
        os.utime(tree / folder, ns=(when, when))


def _with_earlier(target: Path, placed: Sequence[bytes], splits: Sequence[str]) -> list[bytes]:
    """Join the rows with those of splits that an earlier preparation published."""
    earlier = read_manifest(target)
    lines = list(placed)
    for index in range(len(earlier.sizes) if earlier is not None else 0):
        assert earlier is not None
        path = earlier.paths[index]
        split = path.partition("/")[0]
        if split not in splits and (target / split).is_dir():
            lines.append(line_of(path, int(earlier.sizes[index]), int(earlier.crcs[index])))
    return sorted(lines) if len(lines) > len(placed) else lines


def _publish(target: Path, splits: Iterable[str]) -> None:
    """Give each split its name."""
    for split in splits:
        before, after = target / FOLDER / "tree" / split, target / split
        if before.is_dir():
            if os.path.lexists(after):
                _refuse_published(target, [split])
            (target / f".{split}.index.npz").unlink(missing_ok=True)  # of another content
            os.replace(before, after)
        elif not after.is_dir():
            raise StoppedError(f"{after} was about to be published, and is gone. Begin anew with restart=true.")
    sync_folder(target / FOLDER / "tree")
    sync_folder(target)


def _path(row: bytes) -> str:
    return os.fsdecode(row[: row.index(b"\t")])
