"""The reference engine: Pillow decodes the whole image, torch's antialiased uint8 resize cuts the plan's box, threads carry it.

Decoding and resizing release the interpreter lock, so threads of one process use every core and /dev/shm stays empty.
"""

import io
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from src.batch import Batch, BatchPlan, BoxResize, DataError, Encoded, Geometry, Source, StaleIndex
from src.data.engines.staging import HostBatch, HostSlot, to_device
from src.data.headers import FORMATS

_CHUNK = 16  # images a task: small enough to share a batch among threads, large enough to cost nothing


class TorchvisionEngine:
    """Decodes in threads, a few batches ahead.

    Args:
        source: any.
        device: where batches end.
        threads: that decode.
        prefetch: batches decoded while the caller works on one. Memory is bounded by this many batches and one more.
    """

    def __init__(self, source: Source, *, device: torch.device, threads: int, prefetch: int) -> None:
        self._source, self._device, self._prefetch = source, device, prefetch
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def batches(self, plans: Iterator[BatchPlan], *, geometry: Geometry) -> Iterator[Batch]:
        """Yield a batch for each plan. See the protocol."""
        return to_device(self._decoded(plans, geometry), self._device)

    def close(self) -> None:
        """Stop the threads; what is queued is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _decoded(self, plans: Iterator[BatchPlan], geometry: Geometry) -> Iterator[HostBatch]:
        free: deque[HostSlot] = deque()
        pending: deque[tuple[HostBatch, list[Future[None]]]] = deque()
        try:
            while True:
                while len(pending) <= self._prefetch and (plan := next(plans, None)) is not None:
                    pending.append(self._submit(plan, self._slot(free, len(plan.ids), geometry), geometry))
                if not pending:
                    return
                batch, tasks = pending[0]
                for task in tasks:
                    task.result()
                pending.popleft()
                yield batch
                free.append(batch.slot)
        finally:
            for _, tasks in pending:
                for task in tasks:
                    task.cancel()

    def _slot(self, free: deque[HostSlot], capacity: int, geometry: Geometry) -> HostSlot:
        """Return a slot to write to: the longest free one, or a new one where that is too small or there is none."""
        if free:
            slot = free.popleft()
            slot.wait_until_free()
            if len(slot.images) >= capacity:
                return slot
        return HostSlot(capacity, geometry.image_size, self._device)

    def _submit(self, plan: BatchPlan, slot: HostSlot, geometry: Geometry) -> tuple[HostBatch, list[Future[None]]]:
        batch = HostBatch(slot, torch.from_numpy(self._source.labels[plan.ids]), plan)
        pixels = slot.images.numpy()
        rows = range(len(plan.ids))
        chunks = [rows[start : start + _CHUNK] for start in rows[::_CHUNK]]
        return batch, [self._pool.submit(self._make, plan, pixels, geometry, chunk) for chunk in chunks]

    def _make(self, plan: BatchPlan, pixels: NDArray[np.uint8], geometry: Geometry, rows: range) -> None:
        for row in rows:
            index = int(plan.ids[row])
            try:
                image = self._decode(index)
                if isinstance(geometry, BoxResize):
                    x, y, width, height = plan.crops[row].tolist()
                    side = geometry.image_size
                    made = resize(image[y : y + height, x : x + width], (side, side), geometry.interpolation)
                else:
                    made = resize_centre_crop(image, geometry.resize_size, geometry.image_size, geometry.interpolation)
                pixels[row] = made[:, ::-1] if plan.flips[row] else made
            except DataError:
                raise  # names the sample already
            except Exception as error:
                error.add_note(f"while making the pixels of {self._source.name(index)}")
                raise

    def _decode(self, index: int) -> NDArray[np.uint8]:
        encoded = self._source.read(index)
        try:
            image = decode(encoded)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{self._source.name(index)} cannot be decoded: {error}. Replace or remove the file.") from error
        height, width = image.shape[:2]
        if (width, height) != (encoded.width, encoded.height):
            raise StaleIndex(
                f"{self._source.name(index)} is {width} x {height} px, but {encoded.width} x {encoded.height} px in the index: "
                "the file changed. Delete the index (.*.index.npz beside the data, or what is in data.cache_dir) and start again."
            )
        return image


def decode(encoded: Encoded) -> NDArray[np.uint8]:
    """Return uint8 (height, width, 3), RGB, by content, never rotated, never truncated."""
    if encoded.kind == "raw":
        assert isinstance(encoded.data, np.ndarray)
        return encoded.data
    assert not isinstance(encoded.data, np.ndarray)
    with Image.open(io.BytesIO(encoded.data), formats=FORMATS) as image:
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def resize(image: NDArray[np.uint8], size: tuple[int, int], interpolation: str) -> NDArray[np.uint8]:
    """Resize antialiased, on uint8.

    Args:
        image: uint8 (H, W, 3).
        size: height and width.
        interpolation: "bilinear" or "bicubic".

    Returns:
        uint8 (*size, 3).
    """
    if image.shape[:2] == size:
        return image
    height, width = image.shape[:2]
    tensor: Tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    # A batch of one has to be told that it is channels_last; else torch repacks it (pytorch #68430): same pixels, twice the time.
    tensor = tensor.as_strided((1, 3, height, width), (height * width * 3, 1, width * 3, 3))
    resized = functional.interpolate(tensor, size, mode=interpolation, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def resize_centre_crop(image: NDArray[np.uint8], resize_size: int, image_size: int, interpolation: str) -> NDArray[np.uint8]:
    """Do torchvision's Resize(resize_size) and CenterCrop(image_size), with its rounding.

    Args:
        image: uint8 (H, W, 3).
        resize_size: of the shorter side.
        image_size: of the square, at most resize_size.
        interpolation: "bilinear" or "bicubic".

    Returns:
        uint8 (image_size, image_size, 3).
    """
    height, width = image.shape[:2]
    short, long = min(height, width), max(height, width)
    longer = int(resize_size * long / short)
    new_height, new_width = (longer, resize_size) if height > width else (resize_size, longer)
    resized = resize(image, (new_height, new_width), interpolation)
    top, left = round((new_height - image_size) / 2.0), round((new_width - image_size) / 2.0)
    return resized[top : top + image_size, left : left + image_size]
