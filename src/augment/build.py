"""From the configuration to what the loop calls on every micro-batch."""

from collections.abc import Callable
from functools import partial
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.augment.erasing import Erasing
from src.augment.laws import Layers, draw_jitter, draw_rand_augment, draw_rand_augment_timm, draw_trivial_augment_wide
from src.augment.layers import apply_layers, to_device
from src.augment.mixing import Mixing, cutmix, mix_targets, mixup
from src.augment.normalise import Normalise
from src.augment.operations import Fill
from src.batch import Augmented, Batch
from src.config.augment import AugmentConfig

Draw = Callable[..., Layers]  # of keys, height=, width=
DrawJitter = Callable[[NDArray[np.uint64]], Layers]


class TrainingAugmentation:
    """Images for the model, and the targets that the loss sees.

    Operations, jitter and erasing are pure functions of a sample's key; mixing is one of (seed, step, slot). What is off costs
    nothing.

    Args:
        normalise: uint8 to normalised images, in memory of their own.
        operations: draws what is done to uint8 pixels; None: nothing.
        jitter: draws colour jitter, after the operations; None: none.
        fill: what geometric operations uncover; None for black.
        erasing: of normalised images.
        mixing: of micro-batches.
        num_classes: of mixed targets.
        device: where batches are.

    Attributes:
        watched: names of the strengths that every micro-batch tells: "magnitude" (in [0, 1], see Layers), "erased" (0 or 1) and
            "mix_lambda" (the own label's weight, 1 where unmixed), each summed over the images.
    """

    def __init__(
        self,
        normalise: Callable[[Tensor], Tensor],
        *,
        operations: Draw | None,
        jitter: DrawJitter | None,
        fill: Fill,
        erasing: Erasing | None,
        mixing: Mixing | None,
        num_classes: int,
        device: torch.device,
    ) -> None:
        self._normalise, self._fill = normalise, fill
        self._num_classes, self._device = num_classes, device
        self._operations, self._jitter, self._erasing, self._mixing = operations, jitter, erasing, mixing
        on = {"magnitude": operations, "erased": erasing, "mix_lambda": mixing}
        self.watched = tuple(name for name, what in on.items() if what is not None)

    def __call__(self, batch: Batch, *, step: int, slot: int) -> Augmented:
        """Augment one micro-batch. Its own images and labels are not modified.

        Args:
            batch: from the engine.
            step: optimizer updates done so far.
            slot: the micro-batch's place in the step's global batch.
        """
        if not self.watched and self._jitter is None:
            return Augmented(self._normalise(batch.images), batch.labels, {})
        return self._augmented(batch, step, slot)

    @torch.no_grad()
    def _augmented(self, batch: Batch, step: int, slot: int) -> Augmented:
        keys, strengths = batch.plan.keys, dict[str, float]()
        images = self._normalise(self._changed(batch.images, keys, strengths))
        if self._erasing is not None:
            strengths["erased"] = float(self._erasing.erase(images, keys))
        if self._mixing is None:
            return Augmented(images, batch.labels, strengths)
        height, width = images.shape[-2:]
        mix = self._mixing.draw(step=step, slot=slot, images=len(images), height=height, width=width)
        if mix is None:
            strengths["mix_lambda"] = float(len(images))
            return Augmented(images, batch.labels, strengths)
        alone = int((mix.permutation == np.arange(len(images))).sum())
        strengths["mix_lambda"] = alone + (len(images) - alone) * mix.weight
        permutation = to_device(mix.permutation, self._device)
        mixed = mixup(images, permutation, mix.weight) if mix.box is None else cutmix(images, permutation, mix.box)
        return Augmented(mixed, mix_targets(batch.labels, permutation, mix.weight, self._num_classes), strengths)

    def _changed(self, images: Tensor, keys: NDArray[np.uint64], strengths: dict[str, float]) -> Tensor:
        """Apply operations and jitter."""
        layers = []
        if self._operations is not None:
            height, width = images.shape[-2:]
            layers.append(self._operations(keys, height=height, width=width))
            strengths["magnitude"] = float(layers[0].strengths.sum())
        if self._jitter is not None:
            layers.append(self._jitter(keys))
        return apply_layers(images, layers, fill=self._fill) if layers else images


def build_augmentation(
    config: AugmentConfig, *, normalise: Normalise, seed: int, num_classes: int, device: torch.device
) -> TrainingAugmentation:
    """Build what is done to training batches on a device."""
    erasing = Erasing(config.erase_probability, config.erase_scale, config.erase_ratio, noise=config.erase_with == "noise")
    mixing = Mixing(seed, config.mixup_alpha, config.cutmix_alpha, config.mix_probability, config.cutmix_share)
    return TrainingAugmentation(
        normalise,
        operations=_operations(config),
        jitter=_jitter(config),
        fill=normalise.mean_colour if config.operations == "rand_augment_timm" else None,
        erasing=erasing if config.erase_probability > 0 else None,
        mixing=mixing if config.mix_probability > 0 and (config.mixup_alpha > 0 or config.cutmix_alpha > 0) else None,
        num_classes=num_classes,
        device=device,
    )


def _operations(config: AugmentConfig) -> Draw | None:
    match config.operations:
        case "none":
            return None
        case "rand_augment":
            return partial(draw_rand_augment, num_operations=config.num_operations, magnitude=int(config.magnitude))
        case "trivial_augment_wide":
            return draw_trivial_augment_wide
        case "rand_augment_timm":
            return partial(
                draw_rand_augment_timm,
                num_operations=config.num_operations,
                magnitude=config.magnitude,
                deviation=config.magnitude_std,
            )
        case _:
            assert_never(config.operations)


def _jitter(config: AugmentConfig) -> DrawJitter | None:
    if not (config.brightness or config.contrast or config.saturation or config.hue):
        return None
    return partial(
        draw_jitter, brightness=config.brightness, contrast=config.contrast, saturation=config.saturation, hue=config.hue
    )
