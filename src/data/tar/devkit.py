"""The classes of ImageNet's flat validation tar, from the official devkit.

The devkit numbers the classes 1 to 1,000 (ILSVRC2012_ID) in an order of its own. A label is the place of the class's wnid among the
sorted wnids: to take one for the other gives an accuracy of 0.1 %. `data/meta.mat` translates.
"""

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from src.batch import DataError

_MOST = 2**24  # bytes of one file of the devkit; meta.mat has 100 kB
_MOST_INFLATED = 2**26  # bytes of the whole archive, and of meta.mat, inflated; more is damage or an attack
_GZIP = b"\x1f\x8b"
_COMPRESSED, _MATRIX_HEAD = 15, 128  # MAT-File Format, level 5: a compressed element's type, and what stands before the first one
_TRUTH, _META = "data/ILSVRC2012_validation_ground_truth.txt", "data/meta.mat"
_REMEDY = "Set data.devkit_path to ILSVRC2012_devkit_t12.tar.gz as it is published, or to the folder made from it."


class Devkit(NamedTuple):
    """Who is what in the validation split.

    Attributes:
        classes: the wnids, sorted; a label is a position in them.
        labels: of validation image number 1, 2, ...
        train_counts: wnid to how many training images the class has; nothing where the devkit does not tell it of all classes.
    """

    classes: tuple[str, ...]
    labels: tuple[int, ...]
    train_counts: Mapping[str, int]


def read_devkit(path: Path, remedy: str = _REMEDY) -> Devkit:
    """Read the devkit from its tar.gz or its folder.

    Args:
        path: of either.
        remedy: what to do where it cannot be used, for the message.

    Raises:
        DataError: it cannot be used. The message names it and the reason.
    """
    try:
        truth, meta = _files(path, remedy)
    except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as ImageNet's devkit ({error}). {remedy}") from error
    wnids, counts = _wnids(path, meta, remedy)
    classes = tuple(sorted(wnids.values()))
    places = {name: label for label, name in enumerate(classes)}
    numbers = truth.split()
    wrong = next((number for number in numbers if not number.isdigit() or int(number[:9]) not in wnids), None)
    if wrong is not None or not numbers:
        tells = f"tells of a class {wrong[:20]!r}" if wrong is not None else "is empty"
        raise DataError(f"{path}: {_TRUTH} {tells}, and {_META} knows 1 to {len(wnids):,}. {remedy}")
    return Devkit(classes, tuple(places[wnids[int(number)]] for number in numbers), counts)


def stamp(path: Path) -> list[Any]:
    """Return the devkit's state, for a cache's key: its name, and size and mtime of its files."""
    files = [path / _TRUTH, path / _META] if path.is_dir() else [path]
    states = [file.stat() if file.exists() else None for file in files]
    return [str(path.resolve()), *([state.st_size, state.st_mtime_ns] if state else None for state in states)]


def _files(path: Path, remedy: str) -> tuple[bytes, bytes]:
    if path.is_dir():
        root = next((folder for folder in (path, path / "ILSVRC2012_devkit_t12") if (folder / _META).is_file()), path)
        return _head(root / _TRUTH), _head(root / _META)
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(_inflated(path, remedy)), mode="r:") as archive:
        for member in archive:
            wanted = next((name for name in (_TRUTH, _META) if f"/{member.name}".endswith(f"/{name}")), None)
            if wanted is not None and member.isreg() and member.size <= _MOST and (file := archive.extractfile(member)):
                found[wanted] = file.read()
            if len(found) == 2:
                return found[_TRUTH], found[_META]
    raise DataError(f"{path} lacks {', '.join(name for name in (_TRUTH, _META) if name not in found)}. {remedy}")


def _inflated(path: Path, remedy: str) -> bytes:
    """Return the tar. What is named as the devkit may be a bomb, or another archive: of neither is all read."""
    with open(path, "rb") as file:
        is_gzip = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        source = gzip.GzipFile(fileobj=file) if is_gzip else file
        data = source.read(_MOST_INFLATED + 1)
    if len(data) > _MOST_INFLATED:
        raise DataError(f"{path} holds more than {_MOST_INFLATED:,} bytes, and ImageNet's devkit a few million. {remedy}")
    return data


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_MOST)


def _refuse_bomb(path: Path, meta: bytes, remedy: str) -> None:
    """Refuse a meta.mat whose compressed elements would become more than any devkit's: scipy inflates whatever it is given.

    An element is a type and a number of bytes, each in 4, and so many bytes (MAT-File Format, level 5).
    """
    order: Literal["little", "big"] = "big" if meta[126:128] == b"MI" else "little"
    at, budget = _MATRIX_HEAD, _MOST_INFLATED
    while at + 8 <= len(meta):
        kind, length = (int.from_bytes(meta[place : place + 4], order) for place in (at, at + 4))
        if kind == _COMPRESSED:
            budget -= len(zlib.decompressobj().decompress(meta[at + 8 : at + 8 + length], budget + 1))
            if budget < 0:
                raise DataError(f"{path}: {_META} inflates to more than {_MOST_INFLATED:,} bytes. {remedy}")
        at += 8 + length


def _wnids(path: Path, meta: bytes, remedy: str) -> tuple[dict[int, str], dict[str, int]]:
    """Return ILSVRC2012_ID to wnid, of the classes that are told apart: synsets without children; and wnid to training images."""
    try:
        import scipy.io
    except ImportError as error:
        raise DataError(f"{path}: {_META} is a MATLAB file, read by scipy. Run pip install 'imagenet-trainer[devkit]'.") from error
    try:
        _refuse_bomb(path, meta, remedy)
        rows = scipy.io.loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"].reshape(-1)
        leaves = [row for row in rows if int(row["num_children"]) == 0]
        wnids = {int(row["ILSVRC2012_ID"]): os.fspath(str(row["WNID"])) for row in leaves}
    except DataError:
        raise
    except Exception as error:  # scipy raises whatever it meets in a damaged file
        raise DataError(f"{path}: {_META} cannot be read ({type(error).__name__}: {error}). {remedy}") from error
    if sorted(wnids) != list(range(1, len(leaves) + 1)) or len(set(wnids.values())) != len(leaves) or not leaves:
        raise DataError(f"{path}: the classes in {_META} are not numbered from 1 on, one wnid each. {remedy}")
    return wnids, _train_counts(leaves)


def _train_counts(leaves: Sequence[Any]) -> dict[str, int]:
    """Return wnid to training images; nothing where it is not told, or is no number of images: nothing else needs it."""
    try:
        counts = {os.fspath(str(row["WNID"])): int(row["num_train_images"]) for row in leaves}
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        OverflowError,
    ):  # a field that is not there, or no number
        return {}
    return counts if all(count > 0 for count in counts.values()) else {}
