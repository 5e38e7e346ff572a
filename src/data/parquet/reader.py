"""Reads bytes out of pages, and finds where the rows of a page lie.

Of an uncompressed page only the bytes that are asked for are read; of one that snappy compressed, the 64 KiB pieces that hold them.
Any other must be read and decompressed whole for one image of it; a few of the last ones are kept, for rows in the file's order.
"""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.batch import DataError
from src.data.opened import OpenedFiles
from src.data.parquet import snappy
from src.data.parquet.arrow import CODECS, decompress
from src.data.parquet.pages import DICTIONARY, Page
from src.data.parquet.values import Spans, hybrid, plain_spans

_KEPT_PAGES, _KEPT_BYTES = 16, 2**26
_WORTH_CUTTING = 4 * snappy.FRAGMENT

Read = Callable[[int, int], bytes]


class Located(NamedTuple):
    """Where the rows of a page lie.

    Attributes:
        page: that holds their bytes: the page itself, or the one with its dictionary.
        starts: int64 (n,), first byte in that page, decompressed; -1 where the row has no value.
        lengths: int64 (n,).
    """

    page: int
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]


class PageReader:
    """Pages of some files. Safe to use from many threads.

    Args:
        opened: the files.
        table: int64 (p, 12), a `Page` a row.

    Attributes:
        cuts: page to where its snappy stream can be cut; of large pages, as far as they have been read.
    """

    def __init__(self, opened: OpenedFiles, table: NDArray[np.int64]) -> None:
        self._opened, self._table = opened, table
        self.cuts: dict[int, NDArray[np.uint32]] = {}
        self._used_up: dict[int, bool] = {}  # dictionary's page to whether every image of it is asked for
        self._kept: dict[int, bytes] = {}  # its single operations are atomic; no lock, which a fork could copy while it is held

    def page(self, number: int) -> Page:
        """Return one page's record."""
        return Page(*self._table[number].tolist())

    def read(self, number: int, start: int, length: int) -> bytes:
        """Return bytes of a decompressed page.

        Raises:
            OSError: it cannot be read.
            DataError: it is damaged. The reason only.
        """
        page = self.page(number)
        if page.codec == 0:
            return self._opened.read(page.file, page.at + start, length)
        cuts = self.cuts.get(number)
        if cuts is None or length == 0:
            return self._whole(number, page)[start : start + length]
        begin, end = snappy.piece(cuts, start, length)
        first = start // snappy.FRAGMENT * snappy.FRAGMENT
        size = min(-(-(start + length) // snappy.FRAGMENT) * snappy.FRAGMENT, page.size) - first
        data = snappy.as_stream(self._opened.read(page.file, page.at + begin, end - begin), size)
        return decompress(page.codec, data, size)[start - first : start - first + length]

    def reading(self, number: int) -> Read:
        """Return a reader of (start, length), for several images of one page: it reads and decompresses a compressed one once.

        Raises:
            OSError: it cannot be read.
            DataError: it is damaged. The reason only.
        """
        page = self.page(number)
        if page.codec == 0 and page.crc < 0:
            return lambda start, length: self._opened.read(page.file, page.at + start, length)
        data = self._whole(number, page)
        return lambda start, length: data[start : start + length]

    def locate(self, number: int) -> Located:
        """Find where the rows of a data page lie.

        Raises:
            OSError: it cannot be read.
            DataError: it is damaged. The reason only.
        """
        page = self.page(number)
        starts, lengths = np.full(page.rows, -1, np.int64), np.zeros(page.rows, np.int64)
        if page.encoding == DICTIONARY:
            spans = self._dictionary(page.dictionary)
            self._check_use(page.dictionary)
            present, indices = self._indices(number)
            starts[present], lengths[present] = spans.starts[indices], spans.lengths[indices]
            return Located(page.dictionary, starts, lengths)
        read = self.reading(number)
        present, begin = self._present(page, read)
        starts[present], lengths[present] = plain_spans(read, begin, page.size, int(present.sum()))
        return Located(number, starts, lengths)

    def _dictionary(self, number: int) -> Spans:
        page = self.page(number)
        return plain_spans(self.reading(number), 0, page.size, page.entries)

    def _check_use(self, dictionary: int) -> None:
        """Require that every image of a dictionary is asked for: else an index was changed, and a row would get another's image."""
        if dictionary not in self._used_up:
            used = np.zeros(self.page(dictionary).entries, np.bool_)
            number = dictionary + 1
            while number < len(self._table) and (page := self.page(number)).dictionary == dictionary:
                if page.encoding == DICTIONARY:
                    used[self._indices(number)[1]] = True
                number += 1
            self._used_up[dictionary] = bool(used.all())
        if not self._used_up[dictionary]:
            raise DataError("its dictionary holds an image that no row asks for: the rows' indices are damaged")

    def _indices(self, number: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Return bool (n,), which rows of a page have a value, and their places in the dictionary."""
        page = self.page(number)
        read = self.reading(number)
        present, begin = self._present(page, read)
        count = int(present.sum())
        if count == 0:
            return present, np.empty(0, np.int64)
        data = read(begin, page.size - begin)
        if not data or data[0] > 32:
            raise DataError("its page does not tell the width of its indices")
        indices = hybrid(data[1:], data[0], count)
        entries = self.page(page.dictionary).entries
        if indices.max() >= entries:
            raise DataError(f"its page asks for image {indices.max()} of a dictionary of {entries:,}")
        return present, indices

    def _present(self, page: Page, read: Read) -> tuple[NDArray[np.bool_], int]:
        """Return bool (n,), which rows have a value, and where the values begin."""
        if page.levels >= 0:
            begin, levels = 0, self._opened.read(page.file, page.at - page.levels, page.levels)
        elif page.deepest:
            length = int.from_bytes(read(0, 4), "little")
            begin = 4 + length
            if begin > page.size:
                raise DataError("the levels reach beyond their page")
            levels = read(4, length)
        else:
            begin, levels = 0, b""
        if not page.deepest:
            return np.ones(page.rows, np.bool_), begin
        return hybrid(levels, page.deepest.bit_length(), page.rows) == page.deepest, begin

    def _whole(self, number: int, page: Page) -> bytes:
        kept = self._kept.get(number)
        if kept is not None:
            return kept
        before = max(0, page.levels)
        stored = self._opened.read(page.file, page.at - before, before + page.stored)
        if page.crc >= 0 and zlib.crc32(stored) != page.crc:
            raise DataError("its page's checksum is wrong")
        data = stored[before:]
        if page.codec:
            if CODECS[page.codec] == "SNAPPY" and page.size > _WORTH_CUTTING and number not in self.cuts:
                found = snappy.find_cuts(data, page.size)
                if found is not None:
                    self.cuts[number] = found
            data = decompress(page.codec, data, page.size)
        elif len(data) != page.size:
            raise DataError(f"its page has {len(data):,} bytes where its header tells of {page.size:,}")
        self._keep(number, data)
        return data

    def _keep(self, number: int, data: bytes) -> None:
        if len(data) > _KEPT_BYTES:
            return
        self._kept[number] = data
        pages = list(self._kept.items())
        size = sum(len(page) for _, page in pages)
        for old, page in pages:
            if size <= _KEPT_BYTES and len(self._kept) <= _KEPT_PAGES:
                break
            self._kept.pop(old, None)
            size -= len(page)
