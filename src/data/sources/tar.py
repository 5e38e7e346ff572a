"""The tar source: images are read in place, by their offset; nothing is extracted, nothing is written beside read-only data.

What is noticed at opening: every header's checksum, every length, the end mark, and whatever contradicts the layout. A changed bit
within an image is seen by whoever decodes it, if at all; a changed digit in a WebDataset label, or in a name that a pax or
long-name header keeps, is not: the format has no checksum for it.
"""

from collections.abc import Sequence
from pathlib import Path

from src.batch import DataError, Encoded
from src.data.index_cache import Choose, Progress, faults_of_chosen
from src.data.opened import OpenedFiles
from src.data.tar.index import open_tar_index


class TarSource:
    """Chosen images of a split that lies in tars. Layouts: see src/data/tar/layouts.py and webdataset.py.

    Args:
        paths: of the tars.
        choose: labels (n,) of the whole split to the ids that are wanted.
        cache_dir: for the index, where it cannot stand beside the first tar.
        threads: for building the index.
        progress: called with (done, total) while headers are read.
        devkit: ImageNet's devkit (tar.gz or folder), for its flat validation tar.
        classes: names of the labels in WebDataset shards; by default class_0000, class_0001, ...

    Attributes:
        ids: int64 (n,), the chosen samples' places in the whole split.
        faults: index in this source to what is wrong with that image.

    Raises:
        DataError: a tar, or the devkit, cannot be used; the exact reason, and what to do.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        choose: Choose,
        cache_dir: Path,
        threads: int,
        progress: Progress,
        devkit: Path | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self._opened = OpenedFiles(paths)
        index, self.ids = open_tar_index(
            self._opened,
            choose=choose,
            cache_dir=cache_dir,
            threads=threads,
            progress=progress,
            devkit=devkit,
            classes=classes,
        )
        self.classes = index.classes
        self.labels = index.labels[self.ids]
        self.sizes = index.sizes[self.ids]
        self._files, self._starts, self._lengths = index.files[self.ids], index.starts[self.ids], index.lengths[self.ids]
        self._names = index.names
        self.faults = faults_of_chosen(index.faults, self.ids)

    def __len__(self) -> int:
        """Return how many images were chosen."""
        return len(self.ids)

    def read(self, index: int) -> Encoded:
        """Return the image's bytes."""
        try:
            data = self._opened.read(self._files.item(index), self._starts.item(index), self._lengths.item(index))
        except OSError as error:
            raise DataError(f"{self.name(index)} cannot be read: {error.strerror}.") from error
        return Encoded(data, "codestream", self.sizes.item(index, 0), self.sizes.item(index, 1))

    def name(self, index: int) -> str:
        """Return `<tar>/<path in the tar>`."""
        return f"{self._opened.paths[self._files.item(index)].name}/{self._names[self.ids.item(index)]}"
