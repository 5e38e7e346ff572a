"""The images that int8's ranges are taken from: of the training split, prepared as in evaluation; accuracy is told of others."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from src.batch import Source
from src.build_model import build_normalise
from src.config import Config
from src.data.build import build_source
from src.data.subset import choose_subset
from src.predictor import Predictor
from src.training.precision import choose_precision

_BATCH = 16  # calibration keeps all activations of a batch at once
_HELD_OUT = 4  # one image beside every four


class Calibration(NamedTuple):
    """What a quantisation is made from.

    Attributes:
        ranges: batches from which the ranges of activations are taken.
        held_out: batches of other training images, on which one way to take them is chosen.
    """

    ranges: "Batches"
    held_out: "Batches"


def calibration_of(config: Config, count: int, *, threads: int, progress: Callable[[int, int], None]) -> Calibration:
    """Choose training images evenly over the classes: the same ones for the same split and count.

    Args:
        config: of the trained model.
        count: of images for the ranges; a quarter more is held out. Fewer where the split has fewer.
        threads: that read an index, where there is none yet.
        progress: of that.

    Raises:
        ConfigError: if the training split cannot be opened.
    """
    source = build_source(config.data, "train", threads=threads, progress=progress)
    whole = min(len(source), count + max(1, count // _HELD_OUT))
    chosen = min(count, max(1, whole - whole // (_HELD_OUT + 1)))
    ranges = choose_subset(source.labels, chosen)  # lies in the larger choice
    held_out = np.setdiff1d(choose_subset(source.labels, whole), ranges)
    return Calibration(Batches(config, source, ranges), Batches(config, source, held_out))


class Batches(Sequence[Tensor]):
    """Images as a model's input, decoded when they are asked for.

    Args:
        config: how they are prepared.
        source: where they are from.
        ids: int64 (n,), which.
    """

    def __init__(self, config: Config, source: Source, ids: NDArray[np.int64]) -> None:
        cpu = torch.device("cpu")
        precision = choose_precision("fp32", cpu)
        self._source, self._ids = source, ids
        self._predictor = Predictor(config, nn.Identity(), precision, cpu)
        self._normalise = build_normalise(config, precision, cpu)

    @property
    def images(self) -> int:
        """How many images there are in all."""
        return len(self._ids)

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self._ids) // _BATCH)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        """Return a batch, float32 (N, 3, S, S), normalised, on the CPU.

        Raises:
            DataError: an image that cannot be decoded.
        """
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        images = [self._source.read(int(sample)) for sample in self._ids[_BATCH * index : _BATCH * (index + 1)]]
        return self._normalise(self._predictor.pixels(images)).contiguous()
