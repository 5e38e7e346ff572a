"""DALI's part of the `dali` engine: one graph that decodes or takes pixels, cuts, resizes and mirrors, fed from plans.

Every size, box and flip is an input of the graph, so one pipeline serves any image size and any mixture of JPEGs and raw images.
The only file that imports DALI.
"""

from collections import deque
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.batch import BoxResize, Geometry
from src.config import ConfigError, Problem

# Of a GPU's JPEGs, how many its hardware decoder takes, where it has one; the others go to its ordinary cores. DALI's own default.
_HW_DECODER_LOAD = 0.65
_INPUTS = ("data", "raw", "shape", "start", "end", "target")


class DaliError(Exception):
    """The pipeline stopped, as DALI's do at the first image that they cannot decode, and is of no use any more."""


class Request(NamedTuple):
    """One batch for a pipeline.

    Attributes:
        data: N arrays uint8, flat: a JPEG's bytes, or a raw image's pixels. Read in place until the batch is done.
        raw: bool (N,), whether they are pixels.
        shape: int32 (N, 3): height, width, 3, of the whole image.
        start: (N, 2): y and x where the part begins that is resized; int32 for BoxResize, else float32.
        end: (N, 2): y and x behind its end.
        target: float32 (N, 2): height and width in px to resize it to; a negative width mirrors it.
    """

    data: list[NDArray[np.uint8]]
    raw: NDArray[np.bool_]
    shape: NDArray[np.int32]
    start: NDArray[Any]
    end: NDArray[Any]
    target: NDArray[np.float32]

    def row(self, row: int) -> "Request":
        """Return a batch of one image."""
        one = slice(row, row + 1)
        return Request(self.data[one], self.raw[one], self.shape[one], self.start[one], self.end[one], self.target[one])


def request(
    data: list[NDArray[np.uint8]],
    raw: NDArray[np.bool_],
    shape: NDArray[np.int32],
    boxes: NDArray[np.int32],
    flips: NDArray[np.bool_],
    geometry: Geometry,
) -> Request:
    """Say in DALI's terms what a plan and a geometry ask for.

    Args:
        data: see Request.
        raw: see Request.
        shape: see Request.
        boxes: int32 (N, 4): x, y, width, height. Of no meaning for ResizeCentreCrop.
        flips: bool (N,).
        geometry: training's or evaluation's.
    """
    side = geometry.image_size
    target = np.full((len(data), 2), side, np.float32)
    target[flips, 1] = -side
    if isinstance(geometry, BoxResize):
        start = np.ascontiguousarray(boxes[:, 1::-1])
        return Request(data, raw, shape, start, start + boxes[:, :1:-1], target)
    # torchvision resizes and then cuts whole pixels; resizing just that part of the image gives the same pixels with half the work.
    stored = shape[:, :2].astype(np.float64)
    short = stored.min(axis=1, keepdims=True)
    resized = np.floor(geometry.resize_size * stored / short)
    corner = np.rint((resized - side) / 2)
    scale = stored / resized
    start, end = ((edge * scale).astype(np.float32) for edge in (corner, corner + side))
    return Request(data, raw, shape, start, end, target)


class DecodePipeline:
    """One DALI pipeline: feed batches of any length up to a capacity, take them in the same order.

    Args:
        cuts: whether boxes are cut (BoxResize) before resizing; else a part of the whole image is resized (ResizeCentreCrop).
        interpolation: "bilinear" or "bicubic".
        capacity: the longest batch.
        threads: of DALI.
        depth: batches that are fed and not yet released, at most.
        gpu: the device that decodes; None: the CPU does.
    """

    def __init__(
        self,
        *,
        cuts: bool,
        interpolation: Literal["bilinear", "bicubic"],
        capacity: int,
        threads: int,
        depth: int,
        gpu: int | None,
    ) -> None:
        self.cuts, self.interpolation, self.capacity = cuts, interpolation, capacity
        self._pipe = _build(cuts, interpolation, capacity, threads, depth, gpu)
        self._fed: deque[Request] = deque()  # read in place, so they live as long as the pipeline may read them
        # The first run of a pipeline schedules `depth` batches at once and wants the input of all: give it batches of one pixel.
        start, one = np.zeros((1, 2), np.int32 if cuts else np.float32), np.ones((1, 2), np.float32)
        pixel = Request([np.zeros(3, np.uint8)], np.ones(1, np.bool_), np.array([[1, 1, 3]], np.int32), start, start + 1, one)
        for _ in range(depth):
            self._feed_inputs(pixel)
        self._pipe.schedule_run()
        for _ in range(depth):
            self.take()
            self.release()

    def feed(self, batch: Request) -> None:
        """Start a batch.

        Raises:
            DaliError: if an earlier batch has stopped the pipeline.
        """
        self._feed_inputs(batch)
        try:
            self._pipe.schedule_run()
        except RuntimeError as error:
            raise DaliError(str(error)) from error

    def take(self) -> Any:
        """Wait for the next batch.

        Returns:
            DALI's dense tensor uint8 (N, S, S, 3) where the pipeline decodes, valid until `release`.

        Raises:
            DaliError: if an image could not be decoded, or a box lies outside of it.
        """
        try:
            (images,) = self._pipe.share_outputs()
        except RuntimeError as error:
            raise DaliError(str(error)) from error
        self._fed.popleft()
        return images.as_tensor()

    def release(self) -> None:
        """Let the pipeline use the memory again of the batch taken first that is not yet released."""
        if self._pipe is not None:
            self._pipe.release_outputs()

    def close(self) -> None:
        """Stop its threads, and what they are at. May be called twice."""
        self._pipe = None
        self._fed.clear()

    def _feed_inputs(self, batch: Request) -> None:
        self._fed.append(batch)
        for name, values in zip(_INPUTS, batch, strict=True):
            self._pipe.feed_input(name, values)


def copy_to_gpu(images: Any, device: torch.device) -> Tensor:
    """Copy DALI's tensor on a GPU to one of torch's, on the current stream. It must not be released before the stream has done so.

    Args:
        images: from DecodePipeline.take, where a GPU decodes.
        device: the same GPU.
    """
    from nvidia.dali.plugin.pytorch import feed_ndarray

    copied = torch.empty(images.shape(), dtype=torch.uint8, device=device)
    feed_ndarray(images, copied, cuda_stream=torch.cuda.current_stream(device))
    return copied


def load_dali() -> Any:
    """Import DALI.

    Raises:
        ConfigError: naming the extra, where it is not installed.
    """
    try:
        from nvidia import dali
        from nvidia.dali import fn as _fn  # noqa: F401 (an attribute of dali once it is imported)
    except ImportError as error:
        fix = (
            "needs DALI: pip install 'imagenet-trainer[dali]' (CUDA 13's wheel, also without a GPU; [dali-cuda12] for CUDA 12). "
            f"Or set data.engine=auto. ({error})"
        )
        raise ConfigError("the data", [Problem("data.engine", "dali", fix)]) from error
    return dali


def _build(cuts: bool, interpolation: str, capacity: int, threads: int, depth: int, gpu: int | None) -> Any:
    dali = load_dali()
    fn, types = dali.fn, dali.types
    filters = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}
    jpeg: dict[str, Any] = {"adjust_orientation": False}  # nothing here rotates
    if gpu is not None:
        jpeg |= {"device": "mixed", "hw_decoder_load": _HW_DECODER_LOAD}
        jpeg |= {"jpeg_fancy_upsampling": True}  # as libjpeg; without it edges of colour differ
        jpeg |= {"affine": False}  # else several ranks pin their threads to the same cores

    def external(name: str, dtype: Any, ndim: int) -> Any:
        return fn.external_source(name=name, dtype=dtype, ndim=ndim, no_copy=True)

    place = types.INT32 if cuts else types.FLOAT

    def graph() -> Any:
        data, raw, shape = external("data", types.UINT8, 1), external("raw", types.BOOL, 0), external("shape", types.INT32, 1)
        start, end, target = external("start", place, 1), external("end", place, 1), external("target", types.FLOAT, 1)
        if raw:
            whole = fn.reshape(data, shape=shape, layout="HWC")
            pixels = whole if gpu is None else whole.gpu()
            part = fn.slice(pixels, start=start, end=end, axis_names="HW") if cuts else pixels
        else:
            if cuts:
                part = fn.decoders.image_slice(data, start=start, end=end, axis_names="HW", **jpeg)
            else:
                part = fn.decoders.image(data, **jpeg)
        roi = {} if cuts else {"roi_start": start, "roi_end": end}
        return fn.resize(part, size=target, interp_type=filters[interpolation], antialias=True, **roi)

    # With conditionals each row of a batch takes its own branch.
    decorated = dali.pipeline_def(enable_conditionals=True)(graph)
    pipe = decorated(batch_size=capacity, num_threads=threads, device_id=gpu, prefetch_queue_depth=depth)
    pipe.build()
    return pipe
