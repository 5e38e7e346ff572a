"""nvImageCodec on a GPU: nvJPEG and the hardware decoder decode the box, torch resizes it there. Near the reference, not equal.

A thread makes batches ahead on a stream of its own, and hands one over when its work on the device is done.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from src.batch import Batch, BatchPlan, BoxResize, DataError, Encoded, Geometry, Pixels, Source
from src.config import ConfigError, Problem
from src.data.bad_images import BadImages, Substitute, make_or_replace
from src.data.engines import pixels as reference
from src.data.engines.nvimgcodec import Decoders, is_whole_jpeg, load_codec
from src.data.engines.waiting import Watch


class NvImageCodecGpuEngine:
    """Decodes on the GPU, a few batches ahead.

    Args:
        source: any. What is no whole JPEG is decoded on the CPU, by the reference.
        device: a GPU.
        threads: CPU threads that read, and that nvImageCodec may use.
        prefetch: batches made while the caller works on one.
        bad_images: what takes a bad image's place; None: it raises.
        stuck_seconds: see ThreadedEngine.
    """

    pixels = Pixels("nvimgcodec-gpu", exact=False)

    def __init__(
        self,
        source: Source,
        *,
        device: torch.device,
        threads: int,
        prefetch: int,
        bad_images: BadImages | None = None,
        stuck_seconds: float | None = None,
    ) -> None:
        if device.type != "cuda":
            fix = "there is no GPU here. Set data.decoder=cpu."
            raise ConfigError("the data", [Problem("data.decoder", "gpu", fix)])
        self._source, self._device, self._prefetch, self._bad_images = source, device, prefetch, bad_images
        self._watch = Watch(source, stuck_seconds)
        self._codec = codec = load_codec()
        kinds = codec.BackendKind
        backends = [codec.Backend(kind) for kind in (kinds.HW_GPU_ONLY, kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU, kinds.CPU_ONLY)]
        self._decoder = codec.Decoder(device_id=device.index or 0, max_num_cpu_threads=threads, backends=backends)
        self._as_stored = codec.DecodeParams(apply_exif_orientation=False)
        self._on_cpu = Decoders()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._readers = ThreadPoolExecutor(threads, thread_name_prefix="read")
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="decode")

    def batches(self, plans: Iterator[BatchPlan], *, geometry: Geometry) -> Iterator[Batch]:
        """Yield a batch for each plan. See the protocol."""
        pending: deque[tuple[Future[Batch], BatchPlan]] = deque()
        try:
            while True:
                while len(pending) <= self._prefetch and (plan := next(plans, None)) is not None:
                    pending.append((self._maker.submit(self._make, plan, geometry), plan))
                if not pending:
                    return
                head, plan = pending[0]
                (batch,) = self._watch.results([head], plan)
                pending.popleft()
                # The memory came from another stream: it may be used again only after the caller's work on it.
                for tensor in (batch.images, batch.labels):
                    tensor.record_stream(torch.cuda.current_stream(self._device))
                yield batch
        finally:
            for task, _ in pending:
                task.cancel()

    def close(self) -> None:
        """Stop the threads; what is queued is dropped."""
        for pool in (self._maker, self._readers):
            pool.shutdown(wait=not self._watch.stuck, cancel_futures=True)
        self._on_cpu.close()

    def _make(self, plan: BatchPlan, geometry: Geometry) -> Batch:
        side, count = geometry.image_size, len(plan.ids)
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream), torch.no_grad():
            images = torch.empty((count, side, side, 3), dtype=torch.uint8, device=self._device)
            encoded = list(self._readers.map(lambda row: self._read(plan, row), range(count)))
            streams = {row: stream for row in range(count) if (stream := self._open(plan, row, encoded[row], geometry)) is not None}
            decoded: list[Any] = []
            if streams:
                decoded = self._decoder.decode(list(streams.values()), params=self._as_stored, cuda_stream=self._stream.cuda_stream)
            on_device = {row: image for row, image in zip(streams, decoded, strict=True) if image is not None}
            for row, image in on_device.items():
                made = resized(torch.as_tensor(image, device=self._device), geometry)
                images[row] = made.flip(1) if plan.flips[row] else made
            substitutes = self._rest(plan, [row for row in range(count) if row not in on_device], images, geometry)
            if substitutes:
                assert self._bad_images is not None
                plan = self._bad_images.settle(plan, substitutes)
            labels = torch.from_numpy(self._source.labels[plan.ids]).to(self._device)
            self._stream.synchronize()  # what nvImageCodec decoded is freed here
        return Batch(images.permute(0, 3, 1, 2), labels, plan, len(substitutes))

    def _read(self, plan: BatchPlan, row: int) -> Encoded | None:
        try:
            return reference.read_row(self._source, plan, row)
        except DataError:
            return None  # the reference meets it again, and decides

    def _open(self, plan: BatchPlan, row: int, encoded: Encoded | None, geometry: Geometry) -> Any:
        """Return the code stream of what is wanted, or None where the reference has to make it."""
        if encoded is None or encoded.kind == "raw" or not is_whole_jpeg(encoded):
            return None
        try:
            stream = self._codec.CodeStream(encoded.data)
            if (stream.width, stream.height) != (encoded.width, encoded.height):
                return None  # the reference says so
        except RuntimeError:
            return None
        if not isinstance(geometry, BoxResize):
            return stream
        x, y, width, height = plan.crops[row].tolist()
        return stream.get_sub_code_stream(region=self._codec.Region(y, x, y + height, x + width))

    def _rest(self, plan: BatchPlan, rows: list[int], images: Tensor, geometry: Geometry) -> list[Substitute]:
        """Make on the CPU what the GPU could not."""
        substitutes = []
        host = torch.empty((1, *images.shape[1:]), dtype=torch.uint8)

        def make(which: BatchPlan, at: int) -> None:
            reference.write_row(self._on_cpu.decode_box, self._source, which, at, host, 0, geometry)

        for row in rows:
            substitute = make_or_replace(self._bad_images, plan, row, make)
            substitutes += [substitute] if substitute is not None else []
            images[row] = host[0].to(self._device)
        return substitutes


def resized(image: Tensor, geometry: Geometry) -> Tensor:
    """Resize one decoded box, or image, as torchvision does on a GPU: in float32, rounded.

    Args:
        image: uint8 (H, W, 3), on the device.
        geometry: training's, for a box; evaluation's, for a whole image.

    Returns:
        uint8 (S, S, 3).
    """
    height, width = image.shape[:2]
    if isinstance(geometry, BoxResize):
        target = (geometry.image_size, geometry.image_size)
    else:
        target = reference.evaluation_size(height, width, geometry.resize_size)
    if (height, width) != target:
        planes = image.permute(2, 0, 1)[None].float()
        planes = functional.interpolate(planes, target, mode=geometry.interpolation, antialias=True)
        image = planes[0].round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0)
    if isinstance(geometry, BoxResize):
        return image
    return reference.centre(image, geometry.image_size)
