"""DALI decodes, cuts, resizes and mirrors, on the CPU or on a GPU; boxes, flips and order are the plan's.

Its decoder is libjpeg-turbo on the CPU, so decoded pixels are Pillow's; its resizing differs from torch's by a grey level here
and there, and more in the outermost pixels, where it repeats the border instead of leaving it out. What it might see otherwise
than Pillow (other formats, a file without its end, a stream that it refuses) is made by the reference, as in the other engines.
"""

from collections import deque
from collections.abc import Iterator
from weakref import WeakSet

import torch
from torch import Tensor

from src.batch import Batch, BatchPlan, Geometry, Pixels, Source
from src.data.bad_images import BadImages
from src.data.engines.dali_pipeline import copy_to_gpu, load_dali
from src.data.engines.dali_reader import Reader
from src.data.engines.dali_run import Made, Pipelines, Run
from src.data.engines.staging import HostBatch, HostSlot, to_device
from src.data.engines.waiting import Watch

_HELD = 2  # batches on a GPU whose copy need not be done yet, so that nobody waits for the step in progress


class DaliEngine:
    """Threads read a few batches ahead, DALI's own threads or a GPU decode them.

    Args:
        source: any.
        device: where batches end.
        threads: of DALI; as many more read files, which is little work.
        prefetch: batches read and decoded while the caller works on one.
        gpu_decoder: decode and resize on `device`, a GPU. The pixels differ a little from a CPU's.
        bad_images: what takes a bad image's place; None: it raises.
        stuck_seconds: see ThreadedEngine. It holds for DALI's own threads too: where a source maps its file, they read it.

    Raises:
        ConfigError: where DALI is not installed.
    """

    def __init__(
        self,
        source: Source,
        *,
        device: torch.device,
        threads: int,
        prefetch: int,
        gpu_decoder: bool = False,
        bad_images: BadImages | None = None,
        stuck_seconds: float | None = None,
    ) -> None:
        assert device.type == "cuda" or not gpu_decoder, f"a GPU cannot decode for {device}"
        load_dali()
        self.pixels = Pixels("dali-gpu" if gpu_decoder else "dali", exact=False)
        self._source, self._device, self._prefetch, self._bad_images = source, device, prefetch, bad_images
        self._watch = Watch(source, stuck_seconds)
        self._reader = Reader(source, threads, bad_images)
        gpu = (torch.cuda.current_device() if device.index is None else device.index) if gpu_decoder else None
        self._pipelines = Pipelines(threads, prefetch + (_HELD if gpu_decoder else 1), gpu)
        self._gpu_decoder = gpu_decoder
        self._running: WeakSet[Run] = WeakSet()

    def batches(self, plans: Iterator[BatchPlan], *, geometry: Geometry) -> Iterator[Batch]:
        """Yield a batch for each plan. See the protocol."""
        run = Run(self._reader, self._pipelines, geometry, self._watch)
        if self._gpu_decoder:
            return self._on_gpu(run, plans)
        if self._device.type == "cpu":
            return self._on_cpu(run, plans)
        return to_device(self._on_host(run, plans), self._device)

    def close(self) -> None:
        """Stop the threads and the pipelines; what is queued is dropped."""
        self._reader.close(wait=not self._watch.stuck)
        self._watch.close()
        for run in list(self._running):
            run.close()
        self._pipelines.close()

    def _made(self, run: Run, plans: Iterator[BatchPlan]) -> Iterator[Made]:
        """Keep `prefetch` batches under way. Each is to be released before the next is asked for, or a few later."""
        self._running.add(run)
        try:
            while True:
                while len(run.pending) <= self._prefetch and (plan := next(plans, None)) is not None:
                    run.start(plan)
                if not run.pending:
                    run.finish()
                    return
                made = run.take()
                if made.substitutes:
                    assert self._bad_images is not None
                    made = made._replace(plan=self._bad_images.settle(made.plan, made.substitutes))
                yield made
                del made  # or its memory could not be used for the next
        finally:
            run.close()

    def _on_cpu(self, run: Run, plans: Iterator[BatchPlan]) -> Iterator[Batch]:
        for made in self._made(run, plans):
            yield Batch(made.pixels().permute(0, 3, 1, 2), self._labels(made.plan), made.plan, len(made.substitutes))
            made.pipeline.release()
            del made

    def _on_host(self, run: Run, plans: Iterator[BatchPlan]) -> Iterator[HostBatch]:
        """Copy to pinned memory, out of which copies to the device are asynchronous."""
        free: deque[HostSlot] = deque()
        for made in self._made(run, plans):
            pixels = made.pixels()
            slot = free.popleft() if free else HostSlot(len(pixels), pixels.shape[1], self._device)
            slot.wait_until_free()
            if len(slot.images) < len(pixels):
                slot = HostSlot(len(pixels), pixels.shape[1], self._device)
            slot.images[: len(pixels)] = pixels
            made.pipeline.release()
            batch = HostBatch(slot, self._labels(made.plan), made.plan)
            batch.replaced = len(made.substitutes)
            del made, pixels
            yield batch
            free.append(slot)

    def _on_gpu(self, run: Run, plans: Iterator[BatchPlan]) -> Iterator[Batch]:
        """Copy to torch's memory on the caller's stream: what torch frees there is not used again before its readers are done."""
        held: deque[tuple[torch.cuda.Event, Made]] = deque()
        try:
            for made in self._made(run, plans):
                images = copy_to_gpu(made.images, self._device)
                for row, pixels in made.patches.items():
                    images[row] = pixels.pin_memory().to(self._device, non_blocking=True)
                copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
                copied.record(torch.cuda.current_stream(self._device))
                held.append((copied, made))
                labels = self._labels(made.plan).pin_memory().to(self._device, non_blocking=True)
                batch = Batch(images.permute(0, 3, 1, 2), labels, made.plan, len(made.substitutes))
                del images, labels, made
                yield batch
                del batch
                if len(held) == _HELD:
                    _release(*held.popleft())
        finally:
            while held:  # DALI takes its memory back, which may still be copied
                _release(*held.popleft())

    def _labels(self, plan: BatchPlan) -> Tensor:
        return torch.from_numpy(self._source.labels[plan.ids])


def _release(copied: torch.cuda.Event, made: Made) -> None:
    copied.synchronize()
    made.pipeline.release()
