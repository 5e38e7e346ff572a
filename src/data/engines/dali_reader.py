"""What the `dali` engine gives to DALI: rows read in threads, a few batches ahead, and the odd image made without it."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.batch import BatchPlan, DataError, Geometry, Source
from src.data.bad_images import BadImages, Substitute, make_or_replace
from src.data.engines.nvimgcodec import is_whole_jpeg
from src.data.engines.pixels import decode_box, read_row, write_row
from src.data.headers import jpeg_size

_CHUNK = 16  # images a thread takes at once
_BLACK = np.zeros(3, np.uint8)


class Row(NamedTuple):
    """One image as a thread hands it on.

    Attributes:
        data: uint8, flat: a whole JPEG, or a raw image's pixels; one black pixel where the image is made already.
        raw: whether they are pixels.
        size: height and width of the image in `data`.
        made: uint8 (S, S, 3), the finished image, where the reference made it.
        substitute: what it shows, where that is not what was planned.
    """

    data: NDArray[np.uint8]
    raw: bool
    size: tuple[int, int]  # height, width
    made: Tensor | None = None
    substitute: Substitute | None = None


class Reader:
    """Reads a batch's rows in threads, and makes those by the reference that are not for DALI."""

    def __init__(self, source: Source, threads: int, bad_images: BadImages | None) -> None:
        self._source, self._bad_images = source, bad_images
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="read")
        self.refused: set[int] = set()  # samples that DALI has refused once

    def start(self, plan: BatchPlan, geometry: Geometry) -> list[Future[list[Row]]]:
        """Read a batch in chunks."""
        rows = range(len(plan.ids))
        chunks = [rows[start : start + _CHUNK] for start in rows[::_CHUNK]]
        return [self._pool.submit(lambda chunk: [self._row(plan, row, geometry) for row in chunk], chunk) for chunk in chunks]

    def close(self, *, wait: bool) -> None:
        """Stop the threads, and wait for what they are at if they will end it; what is queued is dropped."""
        self._pool.shutdown(wait=wait, cancel_futures=True)

    def _row(self, plan: BatchPlan, row: int, geometry: Geometry) -> Row:
        index = int(plan.ids[row])
        if index not in self.refused:
            try:
                encoded = read_row(self._source, plan, row)
            except DataError:
                return self.by_reference(plan, row, geometry)
            if encoded.kind == "raw":
                pixels = np.ascontiguousarray(encoded.data)
                return Row(pixels.reshape(-1), raw=True, size=(pixels.shape[0], pixels.shape[1]))
            assert not isinstance(encoded.data, np.ndarray)
            # DALI would not notice another size where the box lies inside of both images.
            if is_whole_jpeg(encoded) and jpeg_size(encoded.data) == (encoded.width, encoded.height):
                return Row(np.frombuffer(encoded.data, np.uint8), raw=False, size=(encoded.height, encoded.width))
        return self.by_reference(plan, row, geometry)

    def by_reference(self, plan: BatchPlan, row: int, geometry: Geometry) -> Row:
        """Make one image without DALI, or one in its place.

        Raises:
            DataError: naming the sample, where nothing may take its place.
        """
        made = torch.empty((1, geometry.image_size, geometry.image_size, 3), dtype=torch.uint8)

        def make(which: BatchPlan, at: int) -> None:
            write_row(decode_box, self._source, which, at, made, 0, geometry)

        substitute = make_or_replace(self._bad_images, plan, row, make)
        return Row(_BLACK, raw=True, size=(1, 1), made=made[0], substitute=substitute)
