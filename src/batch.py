"""The words everyone shares: what is planned, what is stored, what is trained on, and what is reported."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # who only reads files needs no torch, which takes seconds to import
    from torch import Tensor

Buffer = bytes | memoryview | NDArray[np.uint8]


class BatchPlan(NamedTuple):
    """What one rank trains or evaluates on in one micro-batch. Pure data, no pixels.

    Attributes:
        ids: int64 (N,), the sample's index in the source. Repeats are allowed.
        keys: uint64 (N,), hash(seed, epoch, repeat, id). Every per-sample draw is hash(key, purpose, n).
        crops: int32 (N, 4), x, y, width, height in pixels of the stored image.
        flips: bool (N,), mirror left-right.
    """

    ids: NDArray[np.int64]
    keys: NDArray[np.uint64]
    crops: NDArray[np.int32]
    flips: NDArray[np.bool_]


class Encoded(NamedTuple):
    """One stored image.

    Attributes:
        data: the file's bytes, or for raw images uint8 (height, width, 3). May be read-only.
        kind: whether it must be decoded.
        width: pixels, before any EXIF rotation (nothing here rotates).
        height: pixels.
    """

    data: Buffer
    kind: Literal["codestream", "raw"]
    width: int
    height: int


class Batch(NamedTuple):
    """What the loop sees.

    Attributes:
        images: uint8 (N, 3, H, W), channels_last, on the rank's device.
        labels: int64 (N,), on the rank's device.
        plan: where the images come from; stays on the CPU. What was asked for, or where images were bad, what took their place.
        replaced: how many images took the place of bad ones.
    """

    images: "Tensor"
    labels: "Tensor"
    plan: BatchPlan
    replaced: int = 0


def keep(batch: Batch) -> Batch:
    """Copy a batch's pixels and labels, so that it can be used after the next one was asked for."""
    return batch._replace(images=batch.images.clone(), labels=batch.labels.clone())


class Augmented(NamedTuple):
    """What the model and the loss see of a batch.

    Attributes:
        images: (N, 3, H, W), normalised.
        targets: int64 (N,), or where images are mixed float32 (N, K).
        strengths: how strongly it was augmented: name -> sum over the micro-batch's images. Plain floats, known without the device.
    """

    images: "Tensor"
    targets: "Tensor"
    strengths: Mapping[str, float]


class BoxResize(NamedTuple):
    """Cut the plan's box and resize it, antialiased, to a square of image_size (training)."""

    image_size: int
    interpolation: Literal["bilinear", "bicubic"]


class ResizeCentreCrop(NamedTuple):
    """Resize the shorter side to resize_size, antialiased, and cut the centre square of image_size (evaluation)."""

    resize_size: int
    image_size: int
    interpolation: Literal["bilinear", "bicubic"]


Geometry = BoxResize | ResizeCentreCrop


class Source(Protocol):
    """Hands out encoded images by index. Knows nothing of epochs, ranks, seeds or pixels. Safe to read from many threads."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is a position in them."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64 (n,)."""

    @property
    def sizes(self) -> NDArray[np.int32]:
        """int32 (n, 2), stored width and height."""

    def __len__(self) -> int:
        """Return how many samples there are."""

    def read(self, index: int) -> Encoded:
        """Return one image as it is stored.

        Raises:
            DataError: naming the sample, if it cannot be read.
        """

    def name(self, index: int) -> str:
        """Return the sample's name for messages, such as "train/n01440764/x.JPEG"."""


class Pixels(NamedTuple):
    """How an engine makes pixels: part of the protocol that is stored with every accuracy.

    Attributes:
        engine: its name, such as "nvimgcodec", or "nvimgcodec-gpu" where a GPU decodes.
        exact: whether they are torchvision's, bit for bit.
        eval_crop: "centre" for ResizeCentreCrop; "centre box" where the engine cuts the box first and then resizes it.
        interpolation: the filter, where it is not the one that the geometry asks for.
    """

    engine: str
    exact: bool
    eval_crop: Literal["centre", "centre box"] = "centre"
    interpolation: str | None = None


class Engine(Protocol):
    """Turns plans into pixels, in the plans' order."""

    @property
    def pixels(self) -> Pixels:
        """How it makes them."""

    def batches(self, plans: Iterator[BatchPlan], *, geometry: Geometry) -> Iterator[Batch]:
        """Yield a batch for each plan, ready on the caller's current stream and valid until the next is asked for.

        Raises:
            DataError: naming the sample, if an image cannot be decoded. It reaches the caller, never hangs.
        """

    def close(self) -> None:
        """Give back every thread, process and buffer, also after an early exit. May be called twice."""


class DataError(Exception):
    """A sample that cannot be used. The message names it, says why, and what to do."""


class Stuck(DataError):  # noqa: N818 (the state it names)
    """Images that did not arrive for a long time: a disk that does not answer. Its thread cannot be ended."""


class StaleIndex(DataError):  # noqa: N818 (the state it names)
    """A decoded image whose size is not what the index says: the file changed after it was indexed."""


class Record(NamedTuple):
    """One row of a run's history.

    Attributes:
        kind: "train" (the mean since the last such row) or "epoch" (the whole epoch, with validation where it ran).
        step: optimizer updates done so far.
        epoch: the epoch these updates belong to, counted from 0.
        values: metric key to plain float, such as "train/loss". Percent 0-100, seconds, fractions 0-1.
    """

    kind: Literal["train", "epoch"]
    step: int
    epoch: int
    values: Mapping[str, float]


class StepRow(NamedTuple):
    """One row of a run's ledger: one optimizer update.

    Attributes:
        step: updates done, this one included.
        plan: 0 to 2**64 - 1, a hash of what all ranks trained on.
        loss: mean over the global batch, as trained on.
        local_batch_size: images a rank and micro-batch.
        arithmetic: 32-bit mark of torch's version and the processor.
        world_size: ranks.
        threads: of torch on a CPU; 0 on a GPU.
    """

    step: int
    plan: int
    loss: float
    local_batch_size: int
    arithmetic: int
    world_size: int
    threads: int


class Tracker(Protocol):
    """Gets every record on rank 0. Plain floats only; it never touches the run."""

    def log(self, record: Record) -> None:
        """Take one record."""

    def advance(self, step: int) -> None:
        """Learn that a step is done. Called after every step, so it must cost nothing."""

    def close(self) -> None:
        """Flush and release."""
