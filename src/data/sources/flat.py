"""Images without labels: the files of one folder, sorted by name. ILSVRC2012's test split is one."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.batch import DataError, Encoded
from src.config import ConfigError, Problem
from src.data.headers import read_header, read_headers
from src.data.index import EXTENSIONS
from src.data.index_cache import Progress

_SHOWN = 5


class FlatSource:
    """All images of a folder, without those of folders in it. All labels are 0 and mean nothing.

    Args:
        root: holds the images.
        names: of the files, sorted.
        sizes: int32 (n, 2), width and height.
    """

    def __init__(self, root: Path, names: list[str], sizes: NDArray[np.int32]) -> None:
        self.root, self.names, self.sizes = root, names, sizes
        self.classes: tuple[str, ...] = ()
        self.labels = np.zeros(len(names), np.int64)

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.names)

    def read(self, index: int) -> Encoded:
        """Return the file's bytes."""
        try:
            with open(self.root / self.names[index], "rb", buffering=0) as file:
                data = file.read()
        except OSError as error:
            raise DataError(f"{self.name(index)} cannot be read: {error.strerror}. It was there a moment ago.") from error
        width, height = self.sizes[index].tolist()
        return Encoded(data, "codestream", width, height)

    def name(self, index: int) -> str:
        """Return the file's path."""
        return str(self.root / self.names[index])


def look_at_folder(root: Path, key: str, *, threads: int, progress: Progress) -> tuple[list[str], NDArray[np.int32]]:
    """List a folder and read its images' headers.

    Returns:
        the files' names, sorted, and int32 (n, 2) their widths and heights.

    Raises:
        ConfigError: naming each bad image, or if there is none.
    """
    try:
        with os.scandir(root) as entries:
            files = [entry.name for entry in entries if entry.name[0] != "." and entry.is_file()]
    except OSError as error:
        raise ConfigError("the data", [Problem(key, str(root), f"cannot be listed: {error.strerror}.")]) from error
    names = sorted(name for name in files if name.lower().endswith(EXTENSIONS))
    if not names:
        fix = f"holds no images ({', '.join(EXTENSIONS)}). They must lie in the folder itself, as ImageNet's test images do."
        raise ConfigError("the data", [Problem(key, str(root), fix)])
    sizes = np.zeros((len(names), 2), np.int32)
    faults = read_headers(
        np.arange(len(names)), sizes, lambda index: read_header(str(root / names[index])), threads=threads, progress=progress
    )
    bad = [Problem(str(root / names[index]), None, f"{fault}. Replace or remove it.") for index, fault in sorted(faults.items())]
    if len(bad) > _SHOWN:
        more = Problem(key, str(root), f"{len(bad) - _SHOWN} more files are bad. Replace or remove them.")
        bad = [*bad[:_SHOWN], more]
    if bad:
        raise ConfigError("the data", bad)
    return names, sizes
