"""The parquet source: Hugging Face's image layout, local files, read image by image.

An image of an uncompressed page is one read of its own bytes. Of a compressed page, the whole page is read and decompressed for it.

What is noticed at opening: a damaged footer, pages whose counts, lengths or checksums (where the writer wrote them) do not agree
with the footer or with their content, labels outside the classes or outside what the footer tells of. What is not, unless the file
was written with write_page_checksum=True: a changed bit within an image, or one that turns a label into another class.
"""

from collections.abc import Sequence
from pathlib import Path

from src.batch import DataError, Encoded
from src.data.index_cache import Choose, Progress, faults_of_chosen
from src.data.opened import OpenedFiles
from src.data.parquet.index import open_parquet_index


class ParquetSource:
    """Chosen rows of Parquet files: a column image of struct<bytes, path> (or binary) and a column label of whole numbers.

    Args:
        paths: of the files; rows count in their order.
        choose: labels (n,) of the whole split to the ids that are wanted.
        cache_dir: for the index, where it cannot stand beside the first file.
        threads: for building the index.
        progress: called with (done, total) while headers are read.

    Attributes:
        ids: int64 (n,), the chosen rows' places in the whole split.
        faults: index in this source to what is wrong with that image.

    Raises:
        DataError: a file cannot be used; its name, the exact reason, and what to do.
    """

    def __init__(self, paths: Sequence[Path], *, choose: Choose, cache_dir: Path, threads: int, progress: Progress) -> None:
        self._opened = OpenedFiles(paths)
        self._index, self.ids = open_parquet_index(
            self._opened, choose=choose, cache_dir=cache_dir, threads=threads, progress=progress
        )
        index = self._index
        self.classes = index.classes
        self.labels = index.labels[self.ids]
        self.sizes = index.sizes[self.ids]
        self._pages, self._starts, self._lengths = index.pages[self.ids], index.starts[self.ids], index.lengths[self.ids]
        self.faults = faults_of_chosen(index.faults, self.ids)

    def __len__(self) -> int:
        """Return how many images were chosen."""
        return len(self.ids)

    def read(self, index: int) -> Encoded:
        """Return the image's bytes."""
        start = self._starts.item(index)
        try:
            if start < 0:
                raise DataError(self.faults.get(index, "it was not found"))
            data = self._index.reader.read(self._pages.item(index), start, self._lengths.item(index))
        except OSError as error:
            raise DataError(f"{self.name(index)} cannot be read: {error.strerror}.") from error
        except DataError as error:
            raise DataError(f"{self.name(index)} cannot be read: {error}.") from error
        return Encoded(data, "codestream", self.sizes.item(index, 0), self.sizes.item(index, 1))

    def name(self, index: int) -> str:
        """Return `<file>#<row>`."""
        return self._index.name(self.ids.item(index))
