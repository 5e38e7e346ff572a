"""FFCV's pixels, from its own .beton: whole JPEGs by turbojpeg, boxes by OpenCV's area filter. Order, boxes, flips: the plan's.

The pixels differ from torchvision's (see `pixels`), the images, boxes and flips do not. What FFCV cannot decode without a complaint
goes to the reference, which decides, as in every engine, whether the image is bad.
"""

import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.batch import BatchPlan, BoxResize, DataError, Geometry, Pixels
from src.data.bad_images import BadImages, Substitute
from src.data.engines.ffcv_decoder import compiled_decoder, read_rows, require_ffcv
from src.data.engines.ffcv_decoder import why_not_importable as why_not_importable
from src.data.engines.pixels import decode_box
from src.data.engines.threaded import ThreadedEngine
from src.data.sources.beton import BetonSource


class FfcvEngine(ThreadedEngine):
    """FFCV in threads of ours. See ThreadedEngine for the arguments.

    In evaluation a box is cut and resized, as FFCV does: the centre square of image_size / resize_size of the shorter side. The
    geometry's interpolation only serves the rows that the reference makes.

    Raises:
        ConfigError: FFCV cannot be imported.
        DataError: the file is not what the source has opened.
    """

    def __init__(
        self,
        source: BetonSource,
        *,
        device: torch.device,
        threads: int,
        prefetch: int,
        bad_images: BadImages | None = None,
        stuck_seconds: float | None = None,
    ) -> None:
        require_ffcv()
        self._rows = read_rows(source)
        self._decode = compiled_decoder()
        self._scratch_bytes = self._rows.scratch_bytes
        self._own = threading.local()
        pixels = Pixels("ffcv", exact=False, eval_crop="centre box", interpolation="area")
        super().__init__(
            source,
            decode_box,
            pixels,
            device=device,
            threads=threads,
            prefetch=prefetch,
            bad_images=bad_images,
            stuck_seconds=stuck_seconds,
        )

    def close(self) -> None:
        """Stop the threads, and let go of the file."""
        super().close()
        self._rows = self._rows._replace(storage=None)

    def _make(self, plan: BatchPlan, pixels: Tensor, geometry: Geometry, rows: range) -> list[Substitute]:
        """Make some rows of a batch, all at once; then the odd ones by the reference, one after the other."""
        if not isinstance(geometry, BoxResize):
            boxes = centre_boxes(self._rows.sizes[plan.ids], geometry.image_size / geometry.resize_size)
            plan, geometry = plan._replace(crops=boxes), BoxResize(geometry.image_size, geometry.interpolation)
        try:
            failed = self._decoded_rows(plan, pixels, slice(rows.start, rows.stop))
        except DataError:
            raise
        except Exception as error:
            names = ", ".join(self._source.name(index) for index in plan.ids[rows.start : rows.stop].tolist())
            error.add_note(f"while making the pixels of {names}")
            raise
        substitutes: list[Substitute] = []
        for row in (np.flatnonzero(failed) + rows.start).tolist():
            substitutes += super()._make(plan, pixels, geometry, range(row, row + 1))
        return substitutes

    def _decoded_rows(self, plan: BatchPlan, pixels: Tensor, part: slice) -> NDArray[np.bool_]:
        """Let FFCV make a part of a batch, and return which of its rows it could not make."""
        ids, flips = np.array(plan.ids[part], np.int64), np.array(plan.flips[part], np.bool_)
        boxes = np.array(plan.crops[part], np.int32, order="C")
        self._source.read(int(ids[0]))  # which looks whether the file is still the one that was opened
        self._check(ids, boxes, self._rows.sizes[ids])
        failed = np.empty(len(ids), np.bool_)
        self._decode(ids, boxes, flips, pixels[part].numpy(), self._scratch(), failed, *self._rows)
        return failed

    def _check(self, ids: NDArray[np.int64], boxes: NDArray[np.int32], sizes: NDArray[np.int32]) -> None:
        """Raise ValueError where a box is empty or reaches outside its image: OpenCV would end the process."""
        ends = boxes[:, :2].astype(np.int64) + boxes[:, 2:]
        outside = ((boxes[:, :2] < 0) | (boxes[:, 2:] <= 0) | (ends > sizes)).any(axis=1)
        if outside.any():
            at = int(outside.argmax())
            width, height = sizes[at].tolist()
            name, box = self._source.name(int(ids[at])), boxes[at].tolist()
            raise ValueError(f"{name}: the box {box} (x, y, width, height) is not within its {width} x {height} px")

    def _scratch(self) -> NDArray[np.uint8]:
        """Return this thread's memory for one decoded image."""
        if not hasattr(self._own, "scratch"):
            self._own.scratch = np.empty(self._scratch_bytes, np.uint8)
        scratch: NDArray[np.uint8] = self._own.scratch
        return scratch


def centre_boxes(sizes: NDArray[np.int32], ratio: float) -> NDArray[np.int32]:
    """Return FFCV's centre boxes (CenterCropRGBImageDecoder): int32 (N, 4), x, y, width, height, at least one pixel.

    Args:
        sizes: int32 (N, 2), width and height.
        ratio: of the box's side to the image's shorter side.
    """
    side = np.maximum((ratio * sizes.min(axis=1)).astype(np.int32), 1)
    return np.column_stack([(sizes - side[:, None]) // 2, side, side]).astype(np.int32)
