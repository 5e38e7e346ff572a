"""The fast engine on a CPU: nvImageCodec decodes only the box of a JPEG, in threads; everything after that is the reference's.

Its CPU decoder is libjpeg-turbo, as Pillow's is, so the pixels are the same bit for bit, for a half of the work. What it might see
otherwise than Pillow (other formats, a file without its end, a stream that it refuses) goes to Pillow.
"""

import os
from threading import get_ident
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from src.batch import Encoded, Pixels, Source
from src.config import ConfigError, Problem
from src.data.bad_images import BadImages
from src.data.engines import pixels as reference
from src.data.engines.pixels import Box
from src.data.engines.threaded import ThreadedEngine

_START, _END = b"\xff\xd8\xff", b"\xff\xd9"  # ITU-T T.81: start of image and the next marker; end of image
_NARROWEST = 64  # px; libjpeg-turbo smooths chroma otherwise in a region of one column, and NVIDIA's decoder hands that on


class NvImageCodecEngine(ThreadedEngine):
    """torchvision's pixels, faster. See ThreadedEngine for the arguments."""

    def __init__(
        self, source: Source, *, device: torch.device, threads: int, prefetch: int, bad_images: BadImages | None = None
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
        )

    def close(self) -> None:
        """Stop the threads, and give the decoders back."""
        super().close()
        self._decoders.close()


class Decoders:
    """nvImageCodec's CPU decoders, one a thread, each with memory that it decodes into again and again.

    So what decode_box returns is valid until the same thread calls it again.
    """

    def __init__(self) -> None:
        self._codec = load_codec()
        self._of_threads: dict[int, _Decoder] = {}
        self._as_stored = self._codec.DecodeParams(apply_exif_orientation=False)

    def decode_box(self, encoded: Encoded, box: Box | None) -> NDArray[np.uint8]:
        """Decode one image, or a box of it. See pixels.decode_box."""
        if encoded.kind == "raw" or not is_whole_jpeg(encoded):
            return reference.decode_box(encoded, box)
        try:
            stream = self._codec.CodeStream(encoded.data)
            width, height = stream.width, stream.height
        except RuntimeError:  # not a JPEG to this decoder
            return reference.decode_box(encoded, box)
        reference.check_size(encoded, width, height)
        if box is None:
            image = self._decode(stream)
            return reference.decode_box(encoded, None) if image is None else image
        x, y, box_width, box_height = box
        left = max(0, min(x, width - _NARROWEST))
        right = min(width, max(x + box_width, left + _NARROWEST))
        image = self._decode(stream.get_sub_code_stream(region=self._codec.Region(y, left, y + box_height, right)))
        if image is None:  # Pillow decides whether it is bad
            return reference.decode_box(encoded, box)
        return image if right - left == box_width else image[:, x - left : x - left + box_width]

    def close(self) -> None:
        """Free the decoders."""
        self._of_threads.clear()

    def _decode(self, stream: Any) -> NDArray[np.uint8] | None:
        own = self._of_threads.get(get_ident())
        if own is None:
            own = self._of_threads[get_ident()] = self._new_decoder()
        image = own.decoder.decode(stream, image=own.image, params=self._as_stored)
        if image is None:
            return None
        own.image = image
        return np.asarray(image.cpu())

    def _new_decoder(self) -> "_Decoder":
        codec = self._codec
        backends = [codec.Backend(codec.BackendKind.CPU_ONLY)]
        return _Decoder(codec.Decoder(device_id=codec.NVIMGCODEC_DEVICE_CPU_ONLY, max_num_cpu_threads=1, backends=backends))


class _Decoder:
    """A decoder and the image that it decodes into: new memory for every image would miss the cache."""

    def __init__(self, decoder: Any) -> None:
        self.decoder, self.image = decoder, None


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
