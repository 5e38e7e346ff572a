"""Random erasing by torchvision's law (Zhong et al. 2020, arXiv:1708.04896): a pure function of the sample's key.

Noise is drawn by torch's generator of the device, seeded from the key for each image: the same on every device of one type and with
one torch version; a CPU and a GPU draw other noise. Whether, where and zeros are the same everywhere.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.draws import Purpose, hash_words, uniform

_ATTEMPTS = 10


class Erasing(NamedTuple):
    """The law.

    Attributes:
        probability: of an image to lose a box.
        scale: range of the box's area as a share of the image's.
        ratio: range of height / width, drawn uniformly in its logarithm.
        noise: whether the box becomes standard normal noise, or 0, which after normalising is the mean.
    """

    probability: float
    scale: tuple[float, float]
    ratio: tuple[float, float]
    noise: bool

    def boxes(self, keys: NDArray[np.uint64], height: int, width: int) -> NDArray[np.int64]:
        """Draw int64 (N, 4) y, x, height, width for each key; nothing is erased where the height is 0.

        Of ten attempts the first that is lower and narrower than the image counts, as in torchvision; after ten, nothing happens.
        """
        attempts = np.arange(_ATTEMPTS)
        column = keys[:, None]
        area = height * width * _between(self.scale, uniform(column, Purpose.ERASE_AREA, attempts))
        ratio = np.exp(_between((np.log(self.ratio[0]), np.log(self.ratio[1])), uniform(column, Purpose.ERASE_RATIO, attempts)))
        heights, widths = np.rint(np.sqrt(area * ratio)).astype(np.int64), np.rint(np.sqrt(area / ratio)).astype(np.int64)
        fits = (heights < height) & (widths < width)
        first = fits.argmax(axis=1)[:, None]
        h, w = (np.take_along_axis(sides, first, axis=1)[:, 0] for sides in (heights, widths))
        y = (uniform(keys, Purpose.ERASE_Y) * (height - h + 1)).astype(np.int64)
        x = (uniform(keys, Purpose.ERASE_X) * (width - w + 1)).astype(np.int64)
        erased = fits.any(axis=1) & (uniform(keys, Purpose.ERASE) < self.probability)
        return np.where(erased[:, None], np.stack([y, x, h, w], axis=1), 0)

    def erase(self, images: Tensor, keys: NDArray[np.uint64]) -> int:
        """Erase boxes in float images (N, 3, H, W), in place. Returns how many images lost one."""
        boxes = self.boxes(keys, *images.shape[-2:])
        erased = np.flatnonzero(boxes[:, 2])
        seeds = hash_words(keys[erased], int(Purpose.ERASE_NOISE)) >> np.uint64(1)
        generator = torch.Generator(images.device) if self.noise else None
        for index, seed in zip(erased.tolist(), seeds.tolist(), strict=True):
            y, x, height, width = boxes[index].tolist()
            box = images[index, :, y : y + height, x : x + width]
            if generator is None:
                box.zero_()
            else:
                generator.manual_seed(seed)
                box.copy_(torch.randn(box.shape, generator=generator, device=images.device))  # drawn in float32 for every type
        return len(erased)


def _between(limits: tuple[float, float], draws: NDArray[np.float64]) -> NDArray[np.float64]:
    return limits[0] + (limits[1] - limits[0]) * draws
