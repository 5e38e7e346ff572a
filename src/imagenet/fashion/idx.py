"""The gzipped idx format of MNIST and its kin, read with every check that it allows."""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_BYTES = 0x08  # the format's code for unsigned bytes


class IdxFile(NamedTuple):
    """What a file must be.

    Attributes:
        name: of the file, `*.gz`.
        shape: of the array.
        md5: of the content before compression: everyone who hands the files on compresses them anew.
    """

    name: str
    shape: tuple[int, ...]
    md5: str

    @property
    def header(self) -> bytes:
        """Two zeros, the type, the number of dimensions, and each dimension in four bytes, big end first."""
        return struct.pack(f">HBB{len(self.shape)}I", 0, _BYTES, len(self.shape), *self.shape)


def read_idx(folder: Path, file: IdxFile) -> NDArray[np.uint8]:
    """Return the file's array, read-only.

    Raises:
        ValueError: it cannot be read or is not the expected file. The message says why, without the file's name.
    """
    length = len(file.header) + math.prod(file.shape)
    try:
        with gzip.open(folder / file.name) as stream:
            data = stream.read(length + 1)  # the one more reaches the end, where gzip checks its own sum; never more than that
    except EOFError as error:
        raise ValueError("is truncated") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"is not sound gzip ({error})") from error
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    _check_header(data, file)
    if len(data) != length:
        raise ValueError(f"holds {'more' if len(data) > length else 'fewer'} bytes than its header says")
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if md5 != file.md5:
        raise ValueError(f"has another content than the published one (md5 {md5} uncompressed, not {file.md5})")
    return np.frombuffer(data, np.uint8, offset=len(file.header)).reshape(file.shape)


def _check_header(data: bytes, file: IdxFile) -> None:
    if data[:4] != file.header[:4]:
        raise ValueError(f"is not the expected idx file (magic number {data[:4].hex()}, not {file.header[:4].hex()})")
    if len(data) < len(file.header):
        raise ValueError("ends within its header")
    if data[: len(file.header)] != file.header:
        shape = struct.unpack_from(f">{len(file.shape)}I", data, 4)
        raise ValueError(f"has the shape {_times(shape)}, not {_times(file.shape)}")


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
