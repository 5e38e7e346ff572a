"""What the parts of the page say to each other. Pure data; of a Space, too."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TOP = 5


class Limits(NamedTuple):
    """What visitors may ask for. See conf/demo.yaml."""

    max_upload_bytes: int
    max_pixels: int
    at_once: int
    queue_size: int
    keep_seconds: int
    keep_bytes: int
    max_connections: int


class About(NamedTuple):
    """What the page says of the model.

    Attributes:
        title: the page's.
        lines: plain text, one fact each.
    """

    title: str
    lines: tuple[str, ...]


class Answer(NamedTuple):
    """What the model said of one image.

    Attributes:
        top: the most probable labels for people, with probabilities of 0-1, best first; at most TOP.
        crop: uint8 (S, S, 3), the pixels that the model saw, before they were normalised.
        prepare_seconds: decoding, resizing and cutting.
        model_seconds: normalising and the network, until the result was here.
        notes: what the visitor should know of how the model met the image.
    """

    top: tuple[tuple[str, float], ...]
    crop: NDArray[np.uint8]
    prepare_seconds: float
    model_seconds: float
    notes: tuple[str, ...]


class Refused(Exception):  # noqa: N818 (nothing failed: the visitor is told why)
    """An image that is not looked at. Its text is shown to the visitor as it is: no path, no number of ours stands in it."""


Answering = Callable[[bytes], Answer]
