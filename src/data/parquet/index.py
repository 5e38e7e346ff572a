"""The index of a split that lies in Parquet files: pages first, then where the chosen images lie in them, and their headers."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.batch import DataError
from src.data.headers import Header, header_from
from src.data.index_cache import Choose, IndexCache, Progress, State, beside_files, numbered, open_cached
from src.data.opened import OpenedFiles
from src.data.parquet.arrow import Table, read_table
from src.data.parquet.pages import Page, Read, list_pages
from src.data.parquet.reader import PageReader

_VERSION = 2
_AGAIN = "Fetch it again from where it came from."


class ParquetIndex:
    """Where each image of a split lies.

    Attributes:
        classes: names; a label is a position in them.
        labels: int64 (n,).
        sizes: int32 (n, 2), width and height; zero where the header has not been read.
        pages: int64 (n,), the page that holds the image; before it was located, the page of its row.
        starts: int64 (n,), the image's first byte in the decompressed page; -1 before it was located.
        lengths: int64 (n,), its bytes.
        first_rows: int64 (number of files + 1,), each file's first row among all.
        reader: of the pages.
        faults: sample index to what is wrong with it.
    """

    def __init__(self, opened: OpenedFiles, state: State) -> None:
        self._opened, self._state = opened, state
        self.classes: tuple[str, ...] = tuple(json.loads(state["classes"].tobytes()))
        self.labels: NDArray[np.int64] = state["labels"]
        self.sizes: NDArray[np.int32] = state["sizes"]
        self.pages: NDArray[np.int64] = state["pages"]
        self.starts: NDArray[np.int64] = state["starts"]
        self.lengths: NDArray[np.int64] = state["lengths"]
        self.first_rows: NDArray[np.int64] = state["first_rows"]
        self._page_rows: NDArray[np.int64] = state["page_rows"]
        self.reader = PageReader(opened, state["table"])
        pieces = np.split(state["cuts"], np.cumsum(state["cuts_each"])[:-1]) if len(state["cuts_each"]) else []
        self.reader.cuts.update(zip(state["cut_pages"].tolist(), pieces, strict=True))
        self.faults: dict[int, str] = {}
        self.changed = False  # nothing of bad images is cached

    def state(self) -> State:
        """Return what is cached, as arrays."""
        cuts = dict(sorted(self.reader.cuts.items()))
        return self._state | {  # the other arrays are filled in place
            "cut_pages": np.array(list(cuts), np.int64),
            "cuts_each": np.array([len(piece) for piece in cuts.values()], np.int64),
            "cuts": np.concatenate([np.empty(0, np.uint32), *cuts.values()]),
        }

    def name(self, index: int) -> str:
        """Return `<file>#<row>`."""
        file = int(np.searchsorted(self.first_rows, index, side="right")) - 1
        return f"{self._opened.paths[file].name}#{index - int(self.first_rows[file])}"

    def read_headers(self, ids: NDArray[np.int64], *, threads: int, progress: Progress) -> None:
        """Locate these samples and read their headers, page by page, in threads."""
        ids = ids[np.argsort(self.pages[ids], kind="stable")]
        groups = np.split(ids, np.flatnonzero(np.diff(self.pages[ids])) + 1) if len(ids) else []
        done = 0
        with ThreadPoolExecutor(threads) as pool:
            for group, headers in zip(groups, pool.map(self._look, groups), strict=True):
                self.sizes[group] = [(header.width, header.height) for header in headers]
                self.faults |= {index: header.fault for index, header in zip(group.tolist(), headers, strict=True) if header.fault}
                done += len(group)
                progress(done, len(ids))

    def _look(self, ids: NDArray[np.int64]) -> list[Header]:
        """Look at samples of one page."""
        number = int(self.pages[ids[0]])
        try:
            if self.starts[ids[0]] < 0:
                self._locate(number, ids)
            number = int(self.pages[ids[0]])
            read = self.reader.reading(number)
            return [self._header(read, index) for index in ids.tolist()]
        except OSError as error:
            return [Header(0, 0, f"cannot be read ({error.strerror})")] * len(ids)
        except _NullError as error:
            raise DataError(str(error)) from None
        except DataError as error:
            return [Header(0, 0, f"cannot be read ({error})")] * len(ids)

    def _locate(self, number: int, ids: NDArray[np.int64]) -> None:
        found = self.reader.locate(number)
        first = int(self._page_rows[number])
        null = ids[found.starts[ids - first] < 0]
        if len(null):
            raise _NullError(
                f"{self.name(int(null[0]))} is null: it has no bytes. Where a file holds paths only, write it anew with bytes."
            )
        rows = slice(first, first + len(found.starts))
        here = found.starts >= 0
        self.lengths[rows][here] = found.lengths[here]
        self.pages[rows][here] = found.page
        self.starts[rows][here] = found.starts[here]

    def _header(self, read: Read, index: int) -> Header:
        start = int(self.starts[index])
        return header_from(lambda begin, count: read(start + begin, count), int(self.lengths[index]))


class _NullError(Exception):
    """A row without an image: the file is not what it should be, which is more than one bad image."""


def open_parquet_index(
    opened: OpenedFiles, *, choose: Choose, cache_dir: Path, threads: int, progress: Progress
) -> tuple[ParquetIndex, NDArray[np.int64]]:
    """Load or build the index, with the chosen samples located and their headers read.

    Args:
        opened: the files.
        choose: labels (n,) to the ids that will be used.
        cache_dir: for the cache, where it cannot stand beside the first file.
        threads: for reading pages and headers.
        progress: called with (done, total).

    Returns:
        The index of the whole split, and the chosen ids.

    Raises:
        DataError: a file cannot be used; its name, the exact reason, and what to do.
    """
    return open_cached(
        IndexCache(beside_files(opened.paths, cache_dir), ["parquet", _VERSION, opened.stamps]),
        build=lambda: ParquetIndex(opened, _built(opened, threads)),
        restore=lambda state: ParquetIndex(opened, state),
        choose=choose,
        threads=threads,
        progress=progress,
    )


def _built(opened: OpenedFiles, threads: int) -> State:
    with ThreadPoolExecutor(threads) as pool:
        tables = list(pool.map(read_table, opened.paths))
        pages: list[Page] = []
        for found in pool.map(lambda file: _pages_of(opened, file, tables[file]), range(len(tables))):
            # Numbers are counted within a file until all are known.
            pages += [page._replace(dictionary=page.dictionary + len(pages)) if page.dictionary >= 0 else page for page in found]
    labels = np.concatenate([table.labels for table in tables])
    counts = np.array([page.rows for page in pages], np.int64)
    page_rows = np.cumsum(counts) - counts
    return {
        "classes": np.frombuffer(json.dumps(_classes(opened, tables, labels)).encode(), np.uint8),
        "labels": labels,
        "sizes": np.zeros((len(labels), 2), np.int32),
        "pages": np.repeat(np.arange(len(pages), dtype=np.int64), counts),
        "starts": np.full(len(labels), -1, np.int64),
        "lengths": np.zeros(len(labels), np.int64),
        "first_rows": np.cumsum([0, *(len(table.labels) for table in tables)], dtype=np.int64),
        "page_rows": page_rows,
        "cut_pages": np.empty(0, np.int64),
        "cuts_each": np.empty(0, np.int64),
        "cuts": np.empty(0, np.uint32),
        "table": np.array(pages, np.int64).reshape(len(pages), len(Page._fields)),
    }


def _pages_of(opened: OpenedFiles, file: int, table: Table) -> list[Page]:
    pages: list[Page] = []

    def read(start: int, count: int) -> bytes:
        return opened.read(file, start, min(count, max(0, opened.sizes[file] - start)))

    try:
        for chunk in table.chunks:
            pages += list_pages(read, chunk, file=file, number=len(pages))
    except OSError as error:
        raise DataError(f"{opened.paths[file]} cannot be read: {error.strerror}.") from error
    except DataError as error:
        raise DataError(f"{opened.paths[file]} {error}. {_AGAIN}") from error
    return pages


def _classes(opened: OpenedFiles, tables: Sequence[Table], labels: NDArray[np.int64]) -> tuple[str, ...]:
    for path, table in zip(opened.paths, tables, strict=True):
        if table.classes != tables[0].classes:
            raise DataError(
                f"{path} and {opened.paths[0]} name their classes differently: a label means two things. Name one split's files."
            )
    named = tables[0].classes
    return named if named is not None else numbered(int(labels.max(initial=-1)) + 1)
