"""Which images, crops and flips come next: pure functions of (seed, epoch, step, sample id), vectorised, with no state.

A step's global batch is order[s * B : (s + 1) * B]. It is cut into slots of one micro-batch each; micro-batch m on rank r takes
slot m * world_size + r. So the plan does not depend on workers, prefetching, engine or, for a kept micro-batch size, on how slots
are spread over ranks and accumulation. Resuming at a step is starting there.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.batch import BatchPlan
from src.draws import Purpose, hash_words, uniform

_BLOCK = 4096  # samples drawn at once
_ATTEMPTS = 10  # torchvision's: after so many boxes that do not fit, the centre is taken


class CropLaw(NamedTuple):
    """How training boxes and flips are drawn.

    Attributes:
        scale: range of the box's share of the image's area.
        ratio: range of width / height, drawn log-uniformly.
        flip_probability: of mirroring left-right.
    """

    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip_probability: float


class EpochPlan:
    """One epoch's order, and each sample's box and flip.

    Args:
        sizes: int32 (n, 2), stored width and height.
        seed: the run's.
        epoch: counted from 0.
        batch_size: images a step over all ranks. What is left over at the epoch's end is dropped.
        local_batch_size: images a slot; divides batch_size.
        law: of boxes and flips.
        repeats: repeated augmentation (Berman et al. 2019, arXiv:1902.05509): a step holds each of its images so many times, with
            other boxes, flips and keys, and an epoch that many fewer images. The repeats of an image stand far apart in the global
            batch, so that slots hold different images.
    """

    def __init__(
        self,
        sizes: NDArray[np.int32],
        *,
        seed: int,
        epoch: int,
        batch_size: int,
        local_batch_size: int,
        law: CropLaw,
        repeats: int = 1,
    ) -> None:
        assert batch_size % local_batch_size == 0
        self._sizes, self._law = sizes, law
        self._seed, self._epoch = seed, epoch
        self._batch_size, self._local_batch_size = batch_size, local_batch_size
        self._distinct = -(-batch_size // repeats)  # images a step; where they do not divide, some are shown once less
        # Sorting hashes needs no generator; a tie, should one ever be, is broken by the id.
        keys = sample_keys(seed, epoch, np.arange(len(sizes)))
        self.order = np.argsort(hash_words(keys, int(Purpose.ORDER)), kind="stable")
        self._block_steps = max(1, _BLOCK // batch_size)
        self._block_number, self._block = -1, whole_images(np.zeros(0, np.int64), sizes)

    def batch(self, step_in_epoch: int, slot: int) -> BatchPlan:
        """Return what one slot of one step holds."""
        assert slot * self._local_batch_size < self._batch_size
        block, step_in_block = divmod(step_in_epoch, self._block_steps)
        if block != self._block_number:
            self._block_number, self._block = block, self._draw(block)
        first = step_in_block * self._batch_size + slot * self._local_batch_size
        own, block_plan = slice(first, first + self._local_batch_size), self._block
        plan = BatchPlan(block_plan.ids[own], block_plan.keys[own], block_plan.crops[own], block_plan.flips[own])
        assert len(plan.ids) == self._local_batch_size, "asked for a step beyond the epoch"
        return plan

    def _draw(self, block: int) -> BatchPlan:
        """Draw some steps at once: a hundred vectorised operations cost nearly the same for 64 samples as for thousands."""
        length = self._block_steps * self._distinct
        distinct = self.order[block * length : (block + 1) * length].astype(np.int64)
        steps = len(distinct) // self._distinct
        place = np.arange(self._batch_size)
        ids = distinct[: steps * self._distinct].reshape(steps, self._distinct)[:, place % self._distinct].ravel()
        keys = sample_keys(self._seed, self._epoch, ids, np.tile(place // self._distinct, steps))
        crops = random_resized_crops(keys, self._sizes[ids], self._law)
        return BatchPlan(ids, keys, crops, uniform(keys, Purpose.FLIP) < self._law.flip_probability)


def sample_keys(seed: int, epoch: int, ids: NDArray[np.int64], repeat: NDArray[np.int64] | int = 0) -> NDArray[np.uint64]:
    """Return uint64 (N,): the root of everything random about one showing of one sample."""
    return hash_words(seed, epoch, repeat, ids)


def random_resized_crops(keys: NDArray[np.uint64], sizes: NDArray[np.int32], law: CropLaw) -> NDArray[np.int32]:
    """Draw torchvision's RandomResizedCrop boxes (Szegedy et al. 2014, arXiv:1409.4842), all samples at once.

    Args:
        keys: uint64 (N,).
        sizes: int32 (N, 2), width and height.
        law: ranges of area and ratio.

    Returns:
        int32 (N, 4): x, y, width, height, inside the image.
    """
    attempt = np.arange(_ATTEMPTS)[None, :]
    column = keys[:, None]
    sizes = np.maximum(sizes, 1)  # an image that is known to be bad has none
    width, height = (sizes[:, axis, None].astype(np.float64) for axis in (0, 1))
    low, high = law.scale
    area = width * height * (low + (high - low) * uniform(column, Purpose.CROP_AREA, attempt))
    log_low, log_high = np.log(law.ratio)
    ratio = np.exp(log_low + (log_high - log_low) * uniform(column, Purpose.CROP_RATIO, attempt))
    box_width, box_height = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (box_width > 0) & (box_width <= width) & (box_height > 0) & (box_height <= height)
    first = fits.argmax(axis=1)[:, None]
    box_width, box_height = (np.take_along_axis(side, first, axis=1) for side in (box_width, box_height))
    x = np.floor(uniform(column, Purpose.CROP_X) * (width - box_width + 1))
    y = np.floor(uniform(column, Purpose.CROP_Y) * (height - box_height + 1))
    drawn = np.concatenate([x, y, box_width, box_height], axis=1)
    return np.where(fits.any(axis=1)[:, None], drawn, _centre_boxes(sizes, law)).astype(np.int32)


def _centre_boxes(sizes: NDArray[np.int32], law: CropLaw) -> NDArray[np.float64]:
    """Return torchvision's fallback: the largest centred box whose ratio is in range, at least one pixel."""
    width, height = sizes[:, 0].astype(np.float64), sizes[:, 1].astype(np.float64)
    too_tall, too_wide = width / height < law.ratio[0], width / height > law.ratio[1]
    box_width = np.where(too_wide, np.maximum(1, np.rint(height * law.ratio[1])), width)
    box_height = np.where(too_tall, np.maximum(1, np.rint(width / law.ratio[0])), height)
    return np.stack([(width - box_width) // 2, (height - box_height) // 2, box_width, box_height], axis=1)


def replacement(plan: BatchPlan, row: int, attempt: int, sizes: NDArray[np.int32], law: CropLaw) -> BatchPlan:
    """Plan one sample in the place of a bad one: a pure function of the bad one's key, so the same for every engine and resume.

    Args:
        plan: the bad sample's batch.
        row: its place in it.
        attempt: counted from 0, for replacements that are bad themselves.
        sizes: int32 (n, 2), of the whole source.
        law: of boxes and flips.
    """
    key = hash_words(plan.keys[row : row + 1], int(Purpose.REPLACEMENT), attempt)
    ids = np.floor(uniform(key, Purpose.REPLACEMENT) * len(sizes)).astype(np.int64)
    crops = random_resized_crops(key, sizes[ids], law)
    return BatchPlan(ids, key, crops, uniform(key, Purpose.FLIP) < law.flip_probability)


def whole_images(ids: NDArray[np.int64], sizes: NDArray[np.int32]) -> BatchPlan:
    """Plan these samples as they are stored: no box, no flip."""
    boxes = np.concatenate([np.zeros((len(ids), 2), np.int32), sizes[ids]], axis=1)
    return BatchPlan(ids, hash_words(0, ids), boxes, np.zeros(len(ids), np.bool_))


def eval_plans(sizes: NDArray[np.int32], *, batch_size: int, rank: int, world_size: int) -> Iterator[BatchPlan]:
    """Yield this rank's share of the split: every sample exactly once over all ranks, nothing padded.

    Batches are cut the same way for any number of ranks and dealt out in turn, so a sample always meets the same neighbours: the
    logits, and so the counts, do not depend on world_size.
    """
    starts = range(0, len(sizes), batch_size)
    for start in starts[rank::world_size]:
        yield whole_images(np.arange(start, min(start + batch_size, len(sizes)), dtype=np.int64), sizes)
