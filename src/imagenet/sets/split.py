"""A validation split made of a folder of classes: stratified, and a pure function of (seed, class, file name).

Images are ranked by a hash of these three, and the first ones of every class become its validation images. So neither the order on
the disk matters nor what other classes hold, and one image more moves at most one other image from one split into the other.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_RANK_BYTES = 8


def val_count(images: int, fraction: float) -> int:
    """Return how many of a class's images go to val: the share, rounded half up, but at least one, and one stays in train.

    Args:
        images: of the class.
        fraction: the share that becomes validation images, within (0, 1).

    Returns:
        0 where the class has fewer than two images: it cannot be in both splits.
    """
    return min(max(math.floor(images * fraction + 0.5), 1), images - 1) if images > 1 else 0


def chosen_for_val(folder: str, names: Sequence[str], *, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Choose the validation images of one class.

    Args:
        folder: the class.
        names: of its images, paths below the class folder, each once.
        fraction: the share, within (0, 1).
        seed: another one chooses other images.

    Returns:
        bool (n,): which of the names are validation images.
    """
    chosen = np.zeros(len(names), np.bool_)
    ranks = [_rank(folder, name, seed) for name in names]
    chosen[sorted(range(len(names)), key=lambda index: (ranks[index], names[index]))[: val_count(len(names), fraction)]] = True
    return chosen


def _rank(folder: str, name: str, seed: int) -> bytes:
    # A zero byte cannot stand in a name: no two triples make the same text.
    text = f"{seed}\0{folder}\0{name}"
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=_RANK_BYTES).digest()
