"""What a preparation would do, checked before anything is made: the source, the target, the archives' sizes, the room."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from src.config import ConfigError, Problem
from src.config.prepare import PrepareConfig
from src.data.index_cache import digest
from src.data.tar.images import some
from src.imagenet.arrange import SPLITS
from src.imagenet.classes import CLASSES_FILE
from src.imagenet.extract import share_of
from src.imagenet.journal import State
from src.imagenet.pieces import Archive, Found, Unit
from src.imagenet.space import Need, Room, nearest_folder, room_at, room_problems, size
from src.imagenet.writing import STAGE

_HARMLESS = ("lost+found", CLASSES_FILE)  # beside what begins with a dot
_MD5_LINE = re.compile(r"\\?([0-9a-fA-F]{32}) [ *](.+)")  # coreutils' md5sum
_BYTES_A_SECOND, _FILES_A_SECOND = 200e6, 5_000.0  # of a disk and a CPU that nobody knows yet


class Plan(NamedTuple):
    """All that the stages need to know.

    Attributes:
        found: in the source.
        source: its path.
        target: where it goes.
        key: tells this source, in this state and divided this way, from any other.
        owners: a unit's name to the archive that it is read from; image files of folders have none.
        sums: archives whose md5 is checked.
        links: whether image files are (where the file system lets it) linked, not copied.
        room: needed and there.
    """

    found: Found
    source: Path
    target: Path
    key: str
    owners: Mapping[str, Path]
    sums: Sequence[Archive]
    links: bool
    room: Room


def make_plan(found: Found, source: Path, target: Path, config: PrepareConfig, state: State) -> Plan:
    """Check what can be checked before.

    Args:
        found: in the source.
        source: its path.
        target: where it goes.
        config: what was asked for.
        state: of the target's journal.

    Raises:
        ConfigError: with every problem at once.
    """
    key = key_of(found, config)
    problems = [*_path_problems(source, target), *_target_problems(target, state, config, key)]
    sums, sum_problems = _sums(found, config)
    problems += sum_problems
    owners = owners_of(found)
    told = state.units if _is_of(state, key) else {}
    left = [(unit, 1 - share_of(told.get(unit.name), unit)) for unit in found.units]
    links = config.link != "copy" and _on_one_disk(target, [unit for unit, _ in left if unit.name not in owners])
    try:
        room = room_at(target, _need(left, owners, links=links))
    except OSError as error:
        fix = f"cannot be used ({error.strerror}). Choose another with target=<folder>."
        raise ConfigError(STAGE, [*problems, Problem("target", str(target), fix)]) from error
    problems += room_problems(target, room)
    if problems:
        raise ConfigError(STAGE, problems)
    return Plan(found, source, target, key, owners, sums, links, room)


def key_of(found: Found, config: PrepareConfig) -> str:
    """Return what tells one preparation from another: only with the same key does a start go on."""
    stamp = json.dumps([found.layout, found.stamp, config.val_fraction, config.split_seed], sort_keys=True, default=str)
    return digest(stamp)


def published(target: Path) -> list[str]:
    """List the splits that stand in the target."""
    return [split for split in SPLITS if os.path.lexists(target / split)]


def _target_problems(target: Path, state: State, config: PrepareConfig, key: str) -> Iterator[Problem]:
    """List what makes the target unusable: strangers, and unfinished or finished work on something else."""
    path = nearest_folder(target)
    if not path.is_dir() or (path == target.absolute() and not os.access(target, os.W_OK | os.X_OK)):
        yield Problem("target", str(target), "is no folder that can be written. Choose another with target=<folder>.")
        return
    if path != target.absolute():
        return
    known = (*SPLITS, *_HARMLESS)
    strangers = sorted(name for name in os.listdir(target) if not name.startswith(".") and name not in known)
    if strangers:
        fix = f"already holds something else ({some(strangers)}). Choose a new folder with target=<folder>."
        yield Problem("target", str(target), fix)
    mine = _is_of(state, key)
    if "publish" in state.stages or state.start is None:
        there = published(target)
        if there and not mine and config.layout == "auto":
            origin = f"prepared from {state.start['source']}" if state.start is not None else "from somewhere else"
            fix = f"already holds {', '.join(there)} {origin}. Choose another target, or move that away. To add a split that is "
            yield Problem("target", str(target), fix + "missing, name the layout (layout=...).")
    elif not mine and not config.restart:
        fix = f"holds an unfinished preparation of {state.start['source']}, or of it in another state or divided otherwise. "
        yield Problem("target", str(target), fix + "Go on with that one, or throw away what it did: restart=true.")


def _is_of(state: State, key: str) -> bool:
    return state.start is not None and state.start["key"] == key


def table(plan: Plan, config: PrepareConfig, threads: int, state: State) -> list[tuple[str, str]]:
    """Return the plan for people: rows of a word and what there is to say."""
    found, room = plan.found, plan.room
    files, count = sum(unit.files for unit in found.units), sum(unit.bytes for unit in found.units)
    from_archives = [unit for unit in found.units if unit.name in plan.owners]
    loose = len(found.units) - len(from_archives)
    how = []
    if from_archives:
        how.append(f"written from {len({plan.owners[unit.name] for unit in from_archives})} archives")
    if loose:
        taken = "hard links to the source's files" if plan.links else "copies of the source's files"
        how.append(f"{taken}, or written ({loose:,} units)" if from_archives else taken)
    checked = [f"{archive.path.name} ({archive.md5})" for archive in plan.sums]
    written = room.bytes_needed
    seconds = max(count / _BYTES_A_SECOND if written else 0, files / _FILES_A_SECOND / threads)
    inodes = "no limit" if room.inodes_free is None else f"{room.inodes_free:,} free"
    done = sum(told.done for told in state.units.values()) if _is_of(state, plan.key) else 0
    return [
        ("layout", f"{found.layout} ({'recognised' if config.layout == 'auto' else 'as given'} in {plan.source})"),
        *[("", note) for note in found.notes],
        ("target", str(plan.target)),
        ("units", f"{len(found.units):,}" + (f", {done:,} of them done by an earlier start" if done else "")),
        ("images", f"about {files:,} files, {size(count)}"),
        ("how", " and ".join(how)),
        ("space", f"{size(room.bytes_needed)} needed, {size(room.bytes_free)} free"),
        ("inodes", f"{room.inodes_needed:,} needed, {inodes}"),
        ("sums", ", ".join(checked) or ("not checked: checksum=off" if config.checksum == "off" else "none are published")),
        ("threads", f"{threads}"),
        ("time", f"about {_duration(seconds)} on a disk of 200 MB/s"),
        ("then", f"classes, index, verification of level {config.level}" + (", sources deleted" if config.delete_source else "")),
    ]


def _path_problems(source: Path, target: Path) -> Iterator[Problem]:
    origin, goal = os.path.realpath(source), os.path.realpath(target)
    if goal == origin or goal.startswith(f"{origin.rstrip('/')}/"):
        fix = f"lies in the source ({source}), which is never touched. Choose a folder beside it."
        yield Problem("target", str(target), fix)
    for split in SPLITS:
        if f"{origin}/".startswith(f"{goal}/{split}/"):
            yield Problem("source", str(source), f"lies in the target's own {split}. Name what was downloaded.")


def owners_of(found: Found) -> dict[str, Path]:
    """Tell which archive each unit is of: by the beginning of its name."""
    by_name = {archive.path.name: archive.path for archive in found.archives}
    owners = {}
    for unit in found.units:
        parts = unit.name.split("/")
        match = next((part for part in parts if part in by_name), None)
        if match is not None:
            owners[unit.name] = by_name[match]
    return owners


def _on_one_disk(target: Path, units: Sequence[Unit]) -> bool:
    """Tell whether a first file that is no archive's lies on the target's file system."""
    for unit in units[:1]:
        for piece in islice(unit.pieces(0), 1):
            if isinstance(piece.content, Path):
                return os.stat(piece.content).st_dev == os.stat(nearest_folder(target)).st_dev
    return False


def _need(units: Sequence[tuple[Unit, float]], owners: Mapping[str, Path], *, links: bool) -> Need:
    """Add up what is to be written, of each unit the share that is left."""
    written = [(unit, share) for unit, share in units if unit.name in owners or not links]
    return Need(
        files=round(sum(unit.files * share for unit, share in written)),
        bytes=round(sum(unit.bytes * share for unit, share in written)),
        folders=2 * min(sum(share > 0 for _, share in units), 1000) + 10,
        names=round(sum(unit.files * share for unit, share in units)),
    )


def _sums(found: Found, config: PrepareConfig) -> tuple[list[Archive], list[Problem]]:
    """Return the archives whose sum is checked, and those that cannot be right: too short, or without the sum that was given."""
    if config.checksum == "off":
        return [], []
    archives = [archive for archive in found.archives if archive.md5 is not None or archive.bytes is not None]
    problems = []
    if config.checksum != "auto":
        try:
            given = _read_md5s(Path(config.checksum).expanduser())
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            return [], [Problem("checksum", config.checksum, f"cannot be read as md5sum's output ({reason}). auto | off | <file>.")]
        archives = [archive._replace(md5=given.get(archive.path.name), bytes=None) for archive in found.archives]
        if not any(archive.md5 for archive in archives):
            names = some(sorted(archive.path.name for archive in found.archives)) or "no archive"
            problems.append(Problem("checksum", config.checksum, f"names none of the source's archives ({names})."))
    for archive in archives:
        there = archive.path.stat().st_size
        if archive.bytes is not None and there != archive.bytes:
            fix = f"has {there:,} bytes, not the published {archive.bytes:,}: "
            fix += f"{size(archive.bytes - there)} are missing" if there < archive.bytes else "it is another file"
            fix += ". Download it again (or go on with the download), or type checksum=off to take it as it is."
            problems.append(Problem(str(archive.path), None, fix))
    return [archive for archive in archives if archive.md5 is not None], problems


def _read_md5s(path: Path) -> dict[str, str]:
    sums = {}
    for line in path.read_text().splitlines():
        match = _MD5_LINE.fullmatch(line.strip())
        if match is None and line.strip():
            raise ValueError(f"a line reads {line[:60]!r}")
        if match is not None:
            sums[match[2].rpartition("/")[2]] = match[1].lower()
    return sums


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else f"{seconds:.0f} s"
