"""Small images as PNG files: the same bytes for the same pixels."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def png_bytes(image: NDArray[np.uint8]) -> bytes:
    """Encode an image, quickly rather than small.

    Args:
        image: uint8 (height, width) grey or (height, width, 3) RGB.
    """
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "PNG", compress_level=1)
    return file.getvalue()
