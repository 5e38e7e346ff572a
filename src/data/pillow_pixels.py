"""Evaluation's images as torchvision makes them of Pillow's: Resize and CenterCrop before the pixels become a tensor.

Pillow's antialiased filters and torch's round otherwise, so an accuracy moves a little. Most published figures were measured so.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from src.batch import ResizeCentreCrop, Source
from src.data.engines.pixels import decode_box, evaluation_size

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def pillow_pixels(source: Source, ids: Sequence[int], geometry: ResizeCentreCrop, pool: ThreadPoolExecutor) -> Tensor:
    """Decode, resize and cut with Pillow, which torchvision's transforms call for its images.

    Args:
        source: of the images, which have been decoded once: what is wrong with one has been told.
        ids: which of them.
        geometry: evaluation's.
        pool: decodes.

    Returns:
        uint8 (N, 3, S, S), channels_last, on the CPU.
    """

    def make(index: int) -> Tensor:
        image = Image.fromarray(decode_box(source.read(index), None))
        height, width = evaluation_size(image.height, image.width, geometry.resize_size)
        resized = image.resize((width, height), _FILTERS[geometry.interpolation]) if image.size != (width, height) else image
        top, left = (round((side - geometry.image_size) / 2.0) for side in (height, width))
        box = (left, top, left + geometry.image_size, top + geometry.image_size)
        return torch.from_numpy(np.array(resized.crop(box)))

    return torch.stack(list(pool.map(make, ids))).permute(0, 3, 1, 2)
