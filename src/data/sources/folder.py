"""The ImageFolder source: root/<class>/<image>, read as the files are."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.batch import DataError, Encoded
from src.config import Problem
from src.data.index import open_index


class FolderSource:
    """Chosen images of an ImageFolder.

    Args:
        root: holds one folder a class.
        choose: labels (n,) to the ids that are wanted.
        cache_dir: for the index, where it cannot stand beside the data.
        threads: for building the index.
        progress: called with (done, total) while headers are read.
    """

    def __init__(
        self,
        root: Path,
        *,
        choose: Callable[[NDArray[np.int64]], NDArray[np.int64]],
        cache_dir: Path,
        threads: int,
        progress: Callable[[int, int], None],
    ) -> None:
        self._index, self._ids = open_index(root, choose=choose, cache_dir=cache_dir, threads=threads, progress=progress)
        self.root, self._root = root, str(root)
        self.classes = self._index.classes
        self.labels = self._index.labels[self._ids]
        self.sizes = self._index.sizes[self._ids]

    def __len__(self) -> int:
        """Return how many images were chosen."""
        return len(self._ids)

    def read(self, index: int) -> Encoded:
        """Return the file's bytes."""
        try:
            with open(self.path(index), "rb", buffering=0) as file:
                data = file.read()
        except OSError as error:
            raise DataError(
                f"{self.name(index)} cannot be read: {error.strerror}. It was there when the index was made."
            ) from error
        width, height = self.sizes[index].tolist()
        return Encoded(data, "codestream", width, height)

    def path(self, index: int) -> str:
        """Return where one image is read from."""
        return os.path.join(self._root, self.relative(index))

    def relative(self, index: int) -> str:
        """Return one image's path below the root."""
        return self._index.relative(int(self._ids[index]))

    def read_from(self, root: Path) -> None:
        """Read from now on from a copy of the chosen images, which lies below this root."""
        self._root = str(root)

    def name(self, index: int) -> str:
        """Return `<split folder>/<class>/<file>`."""
        return f"{self._index.root.name}/{self._index.relative(int(self._ids[index]))}"

    def problems(self, key: str, *, tolerate_bad: bool = False) -> list[Problem]:
        """List what is wrong with the chosen images: the first few by name, the rest by number.

        Args:
            key: the configuration's key of the folder, for the message.
            tolerate_bad: whether single bad images are somebody else's matter.
        """
        faults = {} if tolerate_bad else self._index.faults
        chosen = set(self._ids[np.isin(self._ids, list(faults))].tolist()) if faults else set()
        bad = [(self._index.path(index), fault) for index, fault in sorted(faults.items()) if index in chosen]
        shown = [Problem(path, None, f"{fault}. Replace or remove it.") for path, fault in bad[:_SHOWN]]
        if len(bad) > _SHOWN:
            shown.append(Problem(key, str(self._index.root), f"{len(bad) - _SHOWN} more files are bad. Replace or remove them."))
        present = np.bincount(self._index.labels, minlength=len(self.classes))
        empty = [name for name, count in zip(self.classes, present.tolist(), strict=True) if count == 0]
        if empty:
            listed = ", ".join(empty[:_SHOWN]) + (", ..." if len(empty) > _SHOWN else "")
            shown.append(
                Problem(key, str(self._index.root), f"{len(empty)} class folders hold no image: {listed}. Fill or remove them.")
            )
        return shown


_SHOWN = 5
