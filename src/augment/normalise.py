"""From uint8 pixels to what the model eats: one normalisation on the device serves every engine."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Normalise:
    """(pixel / 255 - mean) / std.

    Args:
        mean: per channel, of images in [0, 1].
        std: per channel.
        dtype: of the result. The arithmetic is at least float32; a 16-bit result is rounded once, at the end.
        memory_format: of the result.

    Attributes:
        mean_colour: the mean in grey levels, 0 to 255: the pixel that becomes nearly 0.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        device: torch.device,
        dtype: torch.dtype,
        memory_format: torch.memory_format,
    ) -> None:
        self._arithmetic = torch.promote_types(dtype, torch.float32)
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(mean, dtype=self._arithmetic, device=device).mul_(255).view(shape)
        self._scale = torch.tensor(std, dtype=self._arithmetic, device=device).mul_(255).reciprocal_().view(shape)
        red, green, blue = (min(255, round(255 * value)) for value in mean)
        self.mean_colour = red, green, blue
        self._dtype, self._memory_format = dtype, memory_format

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise uint8 (N, 3, H, W) to `dtype` (N, 3, H, W)."""
        pixels = images.to(self._arithmetic, memory_format=self._memory_format)
        return pixels.sub_(self._mean).mul_(self._scale).to(self._dtype)
