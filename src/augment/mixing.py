"""Mixup and cutmix as pure functions on device tensors, and what they take as a pure function of (seed, step, slot)."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.draws import Purpose, seed_of, uniform

Box = tuple[int, int, int, int]


def mixup(images: Tensor, permutation: Tensor, weight: float) -> Tensor:
    """Return weight * images + (1 - weight) * images[permutation] (Zhang et al. 2018, arXiv:1710.09412).

    Args:
        images: float32, bfloat16 or float16 (N, 3, H, W). Not modified.
        permutation: int64 (N,), on the images' device: the partner of each.
        weight: of the image itself, in [0, 1].
    """
    return _take(images, permutation).mul_(1.0 - weight).add_(images.mul(weight))


def cutmix(images: Tensor, permutation: Tensor, box: Box) -> Tensor:
    """Paste a box of images[permutation] into images (Yun et al. 2019, arXiv:1905.04899).

    Args:
        images: (N, 3, H, W). Overwritten.
        permutation: int64 (N,), on the images' device.
        box: x and y of its first pixel, and of the first behind it.

    Returns:
        images.
    """
    x1, y1, x2, y2 = box
    pasted = images[..., y1:y2, x1:x2]
    pasted.copy_(_take(pasted, permutation))
    return images


def mix_targets(labels: Tensor, permutation: Tensor, weight: float, num_classes: int) -> Tensor:
    """Return float32 (N, K): weight for the own label, the rest for the partner's.

    Args:
        labels: int64 (N,).
        permutation: int64 (N,), on the labels' device.
        weight: of the own label; of cutmix the exact share of pixels that stayed.
        num_classes: K.
    """
    own = labels[:, None]
    targets = torch.zeros(len(labels), num_classes, device=labels.device).scatter_(1, own, weight)
    return targets.scatter_add_(1, own.index_select(0, permutation), targets.new_full(own.shape, 1.0 - weight))


def _take(images: Tensor, permutation: Tensor) -> Tensor:
    """Return images[permutation] in the layout of images."""
    return images.permute(0, 2, 3, 1).index_select(0, permutation).permute(0, 3, 1, 2)


class Mix(NamedTuple):
    """What one micro-batch is mixed with.

    Attributes:
        weight: of the own image; of cutmix the share of pixels that stay.
        permutation: int64 (N,), the partner of each image.
        box: of cutmix; None of mixup.
    """

    weight: float
    permutation: NDArray[np.int64]
    box: Box | None


class Mixing(NamedTuple):
    """The law: each micro-batch is left alone or mixed in one of the two ways.

    Attributes:
        seed: the run's.
        mixup_alpha: the weight is from Beta(alpha, alpha); 0: no mixup.
        cutmix_alpha: as much for cutmix's area; 0: no cutmix.
        probability: of a micro-batch to be mixed.
        cutmix_share: of these, where both are on, the share that is cutmix.
    """

    seed: int
    mixup_alpha: float
    cutmix_alpha: float
    probability: float
    cutmix_share: float

    def draw(self, *, step: int, slot: int, images: int, height: int, width: int) -> Mix | None:
        """Draw what the micro-batch of a slot is mixed with; None: it is left alone."""
        key = seed_of(self.seed, int(Purpose.MIX), step, slot)
        whether, which = uniform(key, Purpose.MIX_KIND, np.arange(2)).tolist()
        if whether >= self.probability:
            return None
        permutation = np.argsort(uniform(key, Purpose.MIX_ORDER, np.arange(images)), kind="stable")
        if self.cutmix_alpha and (not self.mixup_alpha or which < self.cutmix_share):
            box = draw_box(key, beta(key, self.cutmix_alpha), height, width)
            x1, y1, x2, y2 = box
            return Mix(1.0 - (x2 - x1) * (y2 - y1) / (width * height), permutation, box)
        return Mix(beta(key, self.mixup_alpha), permutation, None)


def draw_box(key: int, kept: float, height: int, width: int) -> Box:
    """Draw a box about any pixel, whose area would be 1 - kept if nothing of it lay outside: torchvision's law."""
    x, y = (uniform(key, Purpose.MIX_BOX, np.arange(2)) * (width, height)).astype(int).tolist()
    half = 0.5 * (1.0 - kept) ** 0.5
    across, down = int(half * width), int(half * height)
    return max(x - across, 0), max(y - down, 0), min(x + across, width), min(y + down, height)


def beta(key: int, alpha: float) -> float:
    """Draw from Beta(alpha, alpha): as X / (X + Y) of two gamma variables."""
    first, second = _log_gamma_variable(key, alpha, 0), _log_gamma_variable(key, alpha, 1)
    return float(1.0 / (1.0 + np.exp(min(second - first, 700.0))))


_TRIES = 16  # each succeeds with a probability above 0.95


def _log_gamma_variable(key: int, alpha: float, which: int) -> float:
    """Draw the logarithm of a Gamma(alpha + 1) variable and bring it to alpha (Marsaglia and Tsang 2000, section 6).

    In logarithms, because for a small alpha most variables are too small for a float.
    """
    draws = uniform(key, Purpose.MIX_GAMMA, which * 64 + np.arange(3 * _TRIES + 1))
    boost, (u1, u2, u3) = draws[0], draws[1:].reshape(3, _TRIES)
    normal = np.sqrt(-2 * np.log1p(-u1)) * np.cos(2 * np.pi * u2)
    d = alpha + 1 - 1 / 3
    cube = np.maximum(1 + normal / np.sqrt(9 * d), 1e-90) ** 3  # 0 would have no logarithm
    accepted = (cube > 1e-170) & (np.log1p(-u3) < normal**2 / 2 + d - d * cube + d * np.log(cube))
    chosen = cube[np.argmax(accepted)]
    return float(np.log(d * chosen) + np.log1p(-boost) / alpha)
