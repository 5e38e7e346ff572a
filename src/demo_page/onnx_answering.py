"""A Space's model: ONNX Runtime on the CPU behind Pillow and numpy. No torch, nothing of the project.

Evaluation resizes with torch, this with Pillow. Both antialias and work on uint8, but round otherwise: of the 30 million values
of 200 ImageNet photographs 0.16 % differ by one grey level (bilinear), 0.34 % by one and ten values by two (bicubic). A test holds
these bounds, 1 and 2. Where nothing is resized, the pixels are equal.
"""

import io
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .pictures import DAMAGED, FORMATS, UNDECODABLE, look, trust_the_cap
from .words import TOP, Answer, Refused

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Preprocessing(NamedTuple):
    """Evaluation's: shorter side to resize_size, centre of image_size, then (pixels / 255 - mean) / std.

    With `flip` the logits are the mean of the image's and its mirror image's.
    """

    resize_size: int
    image_size: int
    interpolation: str
    mean: Sequence[float]
    std: Sequence[float]
    flip: bool


class OnnxAnswers:
    """Answers from an ONNX file.

    Args:
        model: its path; one input, float32 (N, 3, S, S), and one output, logits (N, K).
        labels: K names for people.
        preprocessing: evaluation's.
        max_pixels: of an image.

    Raises:
        ImportError: onnxruntime is not installed.
    """

    def __init__(self, model: Path, labels: Sequence[str], preprocessing: Preprocessing, max_pixels: int) -> None:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # its Linux wheels report sessions to their maker otherwise, from 1.29 on
        import onnxruntime

        trust_the_cap()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._labels, self._preprocessing, self._max_pixels = labels, preprocessing, max_pixels

    def __call__(self, data: bytes) -> Answer:
        """Answer one image. Called from several threads.

        Raises:
            Refused: it is no image, too large, or damaged.
        """
        looked = look(data, self._max_pixels, self._preprocessing.resize_size)
        begun = time.perf_counter()
        try:
            crop = pixels(data, self._preprocessing)
        except UNDECODABLE as error:
            raise Refused(DAMAGED) from error
        prepared = time.perf_counter()
        shares = softmax(self.logits(crop))
        answered = time.perf_counter()
        best = np.argsort(-shares, kind="stable")[:TOP]
        top = tuple((self._labels[label], float(shares[label])) for label in best)
        return Answer(top, crop, prepared - begun, answered - prepared, looked.notes)

    def logits(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return float32 (K,) for uint8 (S, S, 3)."""
        mean, std = np.array(self._preprocessing.mean, np.float32), np.array(self._preprocessing.std, np.float32)
        image = ((crop.astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1)
        images = np.stack([image, image[:, :, ::-1]] if self._preprocessing.flip else [image])
        found: NDArray[np.float32] = self._session.run(None, {self._input: images})[0].mean(axis=0)
        return found


def pixels(data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decode, resize and cut as evaluation does (see above for the bound).

    Returns:
        uint8 (S, S, 3), RGB.

    Raises:
        OSError, ValueError, SyntaxError: it cannot be decoded.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        image.load()
        rgb = image if image.mode == "RGB" else image.convert("RGB")
    short, side, target = min(rgb.size), preprocessing.image_size, preprocessing.resize_size
    width, height = (target if length == short else int(target * length / short) for length in rgb.size)
    if (width, height) != rgb.size:
        rgb = rgb.resize((width, height), _FILTERS[preprocessing.interpolation])
    left, top = round((width - side) / 2.0), round((height - side) / 2.0)
    return np.asarray(rgb.crop((left, top, left + side, top + side)))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return probabilities, in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    found: NDArray[np.float64] = powers / powers.sum()
    return found
