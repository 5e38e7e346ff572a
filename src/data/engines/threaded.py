"""An engine in threads: it plans a few batches ahead, and threads decode, cut, resize and flip into slots that are used again.

Decoding and resizing release the interpreter lock, so threads of one process use every core and /dev/shm stays empty.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from src.batch import Batch, BatchPlan, DataError, Geometry, Pixels, Source, StaleIndex, Stuck
from src.data.bad_images import BadImages, Substitute
from src.data.engines.pixels import DecodeBox, write_row
from src.data.engines.staging import HostBatch, HostSlot, to_device

STUCK_SECONDS = 900  # without the next images: more than a network file system takes to come back, less than a night
_NAMED = 5
_CHUNK = 16  # images a task: small enough to share a batch among threads, large enough to cost nothing


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
    ) -> None:
        self._source, self._decode_box, self.pixels = source, decode, pixels
        self._device, self._prefetch, self._bad_images = device, prefetch, bad_images
        self._stuck = False
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def batches(self, plans: Iterator[BatchPlan], *, geometry: Geometry) -> Iterator[Batch]:
        """Yield a batch for each plan. See the protocol."""
        return to_device(self._decoded(plans, geometry), self._device)

    def close(self) -> None:
        """Stop the threads; what is queued is dropped."""
        self._pool.shutdown(wait=not self._stuck, cancel_futures=True)

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
                substitutes = [substitute for task in tasks for substitute in self._result(task, batch.plan)]
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

    def _result(self, task: Future[list[Substitute]], plan: BatchPlan) -> list[Substitute]:
        try:
            return task.result(timeout=STUCK_SECONDS)
        except TimeoutError:
            if task.done():
                raise  # the task's own
            self._stuck = True
            names = ", ".join(self._source.name(index) for index in plan.ids[:_NAMED].tolist())
            raise Stuck(
                f"a batch has not arrived for {STUCK_SECONDS} seconds: its {len(plan.ids)} images are {names}, ... "
                "Does the disk that holds them answer?"
            ) from None

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
        chunks = [rows[start : start + _CHUNK] for start in rows[::_CHUNK]]
        return batch, [self._pool.submit(self._make, plan, slot.images, geometry, chunk) for chunk in chunks]

    def _make(self, plan: BatchPlan, pixels: Tensor, geometry: Geometry, rows: range) -> list[Substitute]:
        substitutes = []
        for row in rows:
            try:
                write_row(self._decode_box, self._source, plan, row, pixels, row, geometry)
            except StaleIndex:
                raise
            except DataError as error:
                if self._bad_images is None:
                    raise
                place = row

                def make(other: BatchPlan, place: int = place) -> None:
                    write_row(self._decode_box, self._source, other, 0, pixels, place, geometry)

                substitutes.append(self._bad_images.substitute(plan, row, error, make))
        return substitutes
