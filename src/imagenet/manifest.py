"""What a preparation wrote, in `<target>/.prepare/manifest.tsv.gz`: a sorted line for every file.

`path<TAB>bytes<TAB>crc32`; the path is that below the target, the crc32 has 8 hex digits, or is `-` where the file was linked and
its bytes were not looked at. Nothing in it depends on when or where it was made.
"""

import gzip
import os
import zlib
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.batch import DataError
from src.data.index_cache import Names
from src.files import put_in_place, write_temporary

FOLDER = ".prepare"  # of all that a preparation keeps beside the data
_NAME = "manifest.tsv.gz"
LINKED = -1


class Manifest(NamedTuple):
    """All files, by columns, sorted by the bytes of their paths.

    Attributes:
        paths: below the target, "train/n01440764/n01440764_10026.JPEG".
        sizes: int64 (n,), bytes.
        crcs: int64 (n,), crc32 of the content, or -1 where the file was linked.
    """

    paths: Names
    sizes: NDArray[np.int64]
    crcs: NDArray[np.int64]


def manifest_path(target: Path) -> Path:
    """Return where it stands."""
    return target / FOLDER / _NAME


def read_manifest(target: Path) -> Manifest | None:
    """Read it; None where there is none.

    Raises:
        DataError: it is damaged.
        OSError: it cannot be read.
    """
    path = manifest_path(target)
    text, ends, sizes, crcs = bytearray(), array("q"), array("q"), array("q")
    try:
        with gzip.open(path) as file:
            for line in file:
                name, size, crc = line.rstrip(b"\n").split(b"\t")
                text += name
                ends.append(len(text))
                sizes.append(int(size))
                crcs.append(LINKED if crc == b"-" else int(crc, 16))
    except FileNotFoundError:
        return None
    except (EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}). Delete it: then nothing is compared with it.") from error
    return Manifest(Names(bytes(text), _column(ends)), _column(sizes), _column(crcs))


def write_manifest(target: Path, lines: Iterable[bytes]) -> None:
    """Replace it.

    Args:
        target: whose files they are.
        lines: from `line_of`, sorted.

    Raises:
        OSError: the old one stands.
    """

    def write(file: IO[bytes]) -> None:
        with gzip.GzipFile("", "wb", compresslevel=3, fileobj=file, mtime=0) as packed:
            packed.writelines(lines)

    path = manifest_path(target)
    put_in_place(write_temporary(path.parent, write), path)


def line_of(path: str, size: int, crc: int) -> bytes:
    """Return the line of one file; the path holds no control character."""
    return b"%b\t%d\t%b\n" % (os.fsencode(path), size, b"-" if crc == LINKED else b"%08x" % crc)


def _column(numbers: "array[int]") -> NDArray[np.int64]:
    return np.frombuffer(numbers, np.int64) if numbers else np.zeros(0, np.int64)
