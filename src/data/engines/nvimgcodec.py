"""The fast engine on a CPU: nvImageCodec decodes only the box of a JPEG, in threads; everything after that is the reference's.

Its CPU decoder is libjpeg-turbo, as Pillow's is, so the pixels are the same bit for bit, for a half of the work. What it might see
otherwise than Pillow (other formats, a file without its end, a stream that it refuses) goes to Pillow.
"""

import os
from collections.abc import Sequence
from threading import get_ident
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from src.batch import BatchPlan, Encoded, Geometry, Pixels, Source
from src.config import ConfigError, Problem
from src.data.bad_images import BadImages
from src.data.engines import pixels as reference
from src.data.engines.pixels import Box
from src.data.engines.threaded import ThreadedEngine

_START, _END = b"\xff\xd8\xff", b"\xff\xd9"  # ITU-T T.81: start of image and the next marker; end of image
_NARROWEST = 64  # px; libjpeg-turbo smooths chroma otherwise in a region of one column, and NVIDIA's decoder hands that on
_KEPT = 1_000_000  # px; memory of larger images is not kept for the next


class NvImageCodecEngine(ThreadedEngine):
    """torchvision's pixels, faster. See ThreadedEngine for the arguments."""

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
        self._decoders = Decoders()
        super().__init__(
            source,
            self._decoders.decode_box,
            Pixels("nvimgcodec", exact=True),
            device=device,
            threads=threads,
            prefetch=prefetch,
            bad_images=bad_images,
            stuck_seconds=stuck_seconds,
        )

    def _decode_many(self, encoded: dict[int, Encoded], plan: BatchPlan, geometry: Geometry) -> dict[int, NDArray[np.uint8]]:
        wanted = [(stored, reference.box_of(plan, row, geometry)) for row, stored in encoded.items()]
        images = self._decoders.decode_boxes(wanted)
        return {row: image for row, image in zip(encoded, images, strict=True) if image is not None}

    def close(self) -> None:
        """Stop the threads, and give the decoders back."""
        super().close()
        self._decoders.close()


class Decoders:
    """nvImageCodec's CPU decoders, one a thread, each with memory that it decodes into again and again.

    So what is returned is valid until the same thread asks again.
    """

    def __init__(self) -> None:
        self._codec = load_codec()
        self._of_threads: dict[int, _Decoder] = {}
        self._as_stored = self._codec.DecodeParams(apply_exif_orientation=False)

    def decode_box(self, encoded: Encoded, box: Box | None) -> NDArray[np.uint8]:
        """Decode one image, or a box of it. See pixels.decode_box."""
        image = self.decode_boxes([(encoded, box)])[0]
        return reference.decode_box(encoded, box) if image is None else image

    def decode_boxes(self, wanted: Sequence[tuple[Encoded, Box | None]]) -> list[NDArray[np.uint8] | None]:
        """Decode several images, or boxes of them, at once: uint8 (h, w, 3), or None for what the reference has to look at."""
        found: list[NDArray[np.uint8] | None] = [None] * len(wanted)
        opened = [opened for number, (encoded, box) in enumerate(wanted) if (opened := self._open(number, encoded, box))]
        if opened:
            for one, image in zip(opened, self._own().decode([one.stream for one in opened], self._as_stored), strict=True):
                if image is not None:
                    found[one.number] = np.asarray(image.cpu())[:, one.columns]
        return found

    def close(self) -> None:
        """Free the decoders."""
        self._of_threads.clear()

    def _open(self, number: int, encoded: Encoded, box: Box | None) -> "_Opened | None":
        """Return the stream of what is wanted, or None where it is not surely seen as the reference sees it."""
        if encoded.kind == "raw" or not is_whole_jpeg(encoded):
            return None
        try:
            # A mapped file's bytes are copied, which brings them near: decoding waits for memory at every turn.
            data = encoded.data if isinstance(encoded.data, bytes) else bytes(encoded.data)
            stream = self._codec.CodeStream(data)
            width, height = stream.width, stream.height
        except RuntimeError:  # not a JPEG to this decoder
            return None
        if (width, height) != (encoded.width, encoded.height):
            return None
        if box is None:
            return _Opened(number, stream, slice(None))
        x, y, box_width, box_height = box
        left = max(0, min(x, width - _NARROWEST))
        right = min(width, max(x + box_width, left + _NARROWEST))
        part = stream.get_sub_code_stream(region=self._codec.Region(y, left, y + box_height, right))
        return _Opened(number, part, slice(x - left, x - left + box_width))

    def _own(self) -> "_Decoder":
        own = self._of_threads.get(get_ident())
        if own is None:
            own = self._of_threads[get_ident()] = _Decoder(self._codec)
        return own


class _Opened(NamedTuple):
    """A stream to decode, its number, and the columns of the result that are wanted."""

    number: int
    stream: Any
    columns: slice


class _Decoder:
    """A decoder and the images that it decodes into: new memory for every image would be in no cache."""

    def __init__(self, codec: Any) -> None:
        backends = [codec.Backend(codec.BackendKind.CPU_ONLY)]
        self._decoder = codec.Decoder(device_id=codec.NVIMGCODEC_DEVICE_CPU_ONLY, max_num_cpu_threads=1, backends=backends)
        self._images: list[Any] = []

    def decode(self, streams: list[Any], params: Any) -> list[Any]:
        """Decode into the images of the last time, as far as there are any."""
        count = len(streams)
        ready = self._images[:count]
        images = self._decoder.decode(streams[: len(ready)], images=ready, params=params) if ready else []
        if len(ready) < count:
            images += self._decoder.decode(streams[len(ready) :], params=params)
        # An image that failed is given up, and so is its memory; and so is a huge one.
        kept = [image for image in images if image is not None and image.shape[0] * image.shape[1] <= _KEPT]
        self._images = kept + self._images[count:]
        return list(images)


def is_whole_jpeg(encoded: Encoded) -> bool:
    """Return whether the bytes are a JPEG's, to their end: a region's decoder would not see that the rest is missing."""
    data = encoded.data
    assert not isinstance(data, np.ndarray)
    return data[:3] == _START and data[-2:] == _END


def load_codec() -> Any:
    """Import nvImageCodec.

    Raises:
        ConfigError: naming the extra, where it is not installed.
    """
    os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")  # what it refuses is told by us, with the sample's name
    try:
        from nvidia import nvimgcodec
    except ImportError as error:
        fix = (
            "needs nvImageCodec: pip install 'imagenet-trainer[nvimgcodec]' (CUDA 13's wheel, also without a GPU; "
            "[nvimgcodec-cuda12] for CUDA 12). Or set data.engine=torchvision: the same pixels, slower."
        )
        raise ConfigError("the data", [Problem("data.engine", "nvimgcodec", f"{fix} ({error})")]) from error
    return nvimgcodec
