"""The reference engine: Pillow decodes the whole image, torch's antialiased uint8 resize cuts the plan's box."""

import torch

from src.batch import Pixels, Source
from src.data.bad_images import BadImages
from src.data.engines.pixels import decode_box
from src.data.engines.threaded import ThreadedEngine


class TorchvisionEngine(ThreadedEngine):
    """torchvision's recipe, bit for bit, in threads. See ThreadedEngine for the arguments."""

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
        pixels = Pixels("torchvision", exact=True)
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
