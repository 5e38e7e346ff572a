"""An engine in threads: it plans a few batches ahead, and threads decode, cut, resize and flip into slots that are used again.

Decoding and resizing release the interpreter lock, so threads of one process use every core and /dev/shm stays empty.
"""

import contextlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.batch import Batch, BatchPlan, BoxResize, DataError, Encoded, Geometry, Pixels, Source
from src.data.bad_images import BadImages, Substitute, make_or_replace
from src.data.engines.pixels import DecodeBox, finish_row, read_row, write_row
from src.data.engines.staging import HostBatch, HostSlot, to_device
from src.data.engines.waiting import Watch

_CHUNK = 32  # images a task, at most: more at once gains nothing
_TASKS = 4  # a thread, among the batches that are under way: so that none waits for another
_PIXELS = 4_000_000  # decoded at once by a thread, unless a single image has more: it bounds the memory


class ThreadedEngine:
    """Decodes in threads, a few batches ahead.

    Args:
        source: any.
        decode: one image or a box of it; called from many threads.
        pixels: how it makes them.
        device: where batches end.
        threads: that decode.
        prefetch: batches decoded while the caller works on one. Memory is bounded by this many batches and one more.
        bad_images: what takes a bad image's place; None: it raises.
        stuck_seconds: in which a batch must be there that is waited for, or its images are named and it ends; None: no limit.
    """

    def __init__(
        self,
        source: Source,
        decode: DecodeBox,
        pixels: Pixels,
        *,
        device: torch.device,
        threads: int,
        prefetch: int,
        bad_images: BadImages | None = None,
        stuck_seconds: float | None = None,
    ) -> None:
        self._source, self._decode_box, self.pixels = source, decode, pixels
        self._device, self._prefetch, self._bad_images = device, prefetch, bad_images
        self._watch, self._threads = Watch(source, stuck_seconds), threads
        torch.get_num_threads()  # settles the caller's own number, before _alone says another to threads that are still to come
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode", initializer=_alone)

    def batches(self, plans: Iterator[BatchPlan], *, geometry: Geometry) -> Iterator[Batch]:
        """Yield a batch for each plan. See the protocol."""
        return to_device(self._decoded(plans, geometry), self._device)

    def close(self) -> None:
        """Stop the threads; what is queued is dropped."""
        self._pool.shutdown(wait=not self._watch.stuck, cancel_futures=True)

    def _decoded(self, plans: Iterator[BatchPlan], geometry: Geometry) -> Iterator[HostBatch]:
        free: deque[HostSlot] = deque()
        pending: deque[tuple[HostBatch, list[Future[list[Substitute]]]]] = deque()
        try:
            while True:
                while len(pending) <= self._prefetch and (plan := next(plans, None)) is not None:
                    pending.append(self._submit(plan, self._slot(free, len(plan.ids), geometry), geometry))
                if not pending:
                    return
                batch, tasks = pending[0]
                substitutes = [substitute for made in self._watch.results(tasks, batch.plan) for substitute in made]
                pending.popleft()
                if substitutes:
                    assert self._bad_images is not None
                    batch.replace(self._bad_images.settle(batch.plan, substitutes), self._source.labels, len(substitutes))
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

    def _submit(self, plan: BatchPlan, slot: HostSlot, geometry: Geometry) -> tuple[HostBatch, list[Future[list[Substitute]]]]:
        batch = HostBatch(slot, torch.from_numpy(self._source.labels[plan.ids]), plan)
        rows = range(len(plan.ids))
        size = max(1, min(_CHUNK, len(rows) * self._prefetch // (_TASKS * self._threads)))
        chunks = [rows[start : start + size] for start in rows[::size]]
        return batch, [self._pool.submit(self._make, plan, slot.images, geometry, chunk) for chunk in chunks]

    @torch.inference_mode()
    def _make(self, plan: BatchPlan, pixels: Tensor, geometry: Geometry, rows: range) -> list[Substitute]:
        sizes = plan.crops[:, 2:] if isinstance(geometry, BoxResize) else self._source.sizes[plan.ids]
        area = sizes[rows.start : rows.stop].astype(np.int64).prod(axis=1)
        groups = np.cumsum(area) // _PIXELS
        substitutes = []
        for start, stop in zip(*_runs(groups), strict=True):
            substitutes += self._make_group(plan, pixels, geometry, rows[start:stop])
        return substitutes

    def _make_group(self, plan: BatchPlan, pixels: Tensor, geometry: Geometry, rows: range) -> list[Substitute]:
        """Read some images, decode them, and then resize them: code that is used again at once is found in the cache."""
        substitutes = []
        encoded: dict[int, Encoded] = {}
        for row in rows:
            with contextlib.suppress(DataError):  # it is met again, in its turn
                encoded[row] = read_row(self._source, plan, row)
        decoded = self._decode_many(encoded, plan, geometry)
        for row, image in decoded.items():
            finish_row(image, bool(plan.flips[row]), pixels[row], geometry)
        # Only now the rest, one by one: the memory of what was decoded at once may be used again from here on.
        for row in rows:
            if row not in decoded:
                substitute = self._make_alone(plan, pixels, geometry, row, encoded.get(row))
                substitutes += [substitute] if substitute is not None else []
        return substitutes

    def _make_alone(
        self, plan: BatchPlan, pixels: Tensor, geometry: Geometry, row: int, encoded: Encoded | None
    ) -> Substitute | None:
        """Make one image, or another in its place."""

        def make(which: BatchPlan, at: int) -> None:
            stored = encoded if which is plan else None
            write_row(self._decode_box, self._source, which, at, pixels, row, geometry, stored)

        return make_or_replace(self._bad_images, plan, row, make)

    def _decode_many(self, encoded: dict[int, Encoded], plan: BatchPlan, geometry: Geometry) -> dict[int, NDArray[np.uint8]]:
        """Decode at once what can be: row to uint8 (h, w, 3), valid until this thread calls it again. The rest goes one by one."""
        return {}


def _alone() -> None:
    """Let torch use this thread only: copying an image would otherwise wake a team of threads for each of ours, which spin."""
    torch.set_num_threads(1)


def _runs(values: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Return where runs of equal values start and stop."""
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]).tolist()
    return starts, [*starts[1:], len(values)]
