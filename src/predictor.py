"""A trained model on single images: their bytes in, logits out, with evaluation's preprocessing to the bit."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from src.batch import DataError, Encoded
from src.build_model import build_normalise
from src.config import Config
from src.data.engines.pixels import decode_box, resize_centre_crop
from src.data.headers import header_of
from src.training.evaluation import logits_of
from src.training.precision import Precision


class Predictor:
    """The reference engine's pixels (what every exact engine makes in evaluation), then the model.

    Args:
        config: of the trained model: its data.resize_size, eval_image_size, eval_interpolation, mean and std, and its
            test_time_augmentation.
        model: in evaluation mode, on the device.
        precision: of the arithmetic.
        device: the model's.
    """

    def __init__(self, config: Config, model: nn.Module, precision: Precision, device: torch.device) -> None:
        self._data, self._model, self._precision, self._device = config.data, model, precision, device
        self._flip = config.test_time_augmentation == "flip"
        self._normalise = build_normalise(config, precision, device)

    def pixels(self, images: Sequence[Encoded]) -> Tensor:
        """Decode, resize and cut.

        Returns:
            uint8 (N, 3, S, S), channels_last, on the device.

        Raises:
            DataError: an image that cannot be decoded.
        """
        data = self._data
        rows = []
        for encoded in images:
            try:
                image = decode_box(encoded, None)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                raise DataError(f"the image cannot be decoded: {error}") from error
            rows.append(resize_centre_crop(image, data.resize_size, data.eval_image_size, data.eval_interpolation))
        return torch.stack(rows).permute(0, 3, 1, 2).to(self._device)

    @torch.no_grad()
    def logits_of(self, pixels: Tensor) -> Tensor:
        """Return float32 (N, K), on the CPU, for what `pixels` made. It waits for the device."""
        with self._precision.autocast():
            logits = logits_of(self._model, self._normalise(pixels), flip=self._flip)
        return logits.float().cpu()

    def logits(self, images: Sequence[Encoded]) -> Tensor:
        """Return float32 (N, K), on the CPU. See `pixels` for what it raises."""
        return self.logits_of(self.pixels(images))


def encoded(data: bytes) -> Encoded:
    """Look at an image's bytes.

    Raises:
        DataError: they are no image of a known format, truncated, or too large to be decoded safely.
    """
    header = header_of(data)
    if header.fault:
        raise DataError(f"the image {header.fault}")
    return Encoded(data, "codestream", header.width, header.height)
