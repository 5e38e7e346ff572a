"""Images made from their number: no files, any count, learnable (each class has its own pattern), the same on every machine."""

import numpy as np
from numpy.typing import NDArray

from src.batch import Encoded
from src.draws import Purpose, hash_words


class SyntheticSource:
    """Raw images: a coarse pattern of the sample's class under noise of its own.

    Args:
        count: how many.
        num_classes: sample i is of class i mod num_classes.
        stored_size: sides lie between this and half more.
        split: tells train from val: same patterns, other noise.
    """

    def __init__(self, *, count: int, num_classes: int, stored_size: int, split: str) -> None:
        digits = len(str(num_classes - 1))
        self.classes = tuple(f"class_{label:0{digits}d}" for label in range(num_classes))
        ids = np.arange(count)
        self._split = split
        self._salt = int.from_bytes(split.encode(), "little")
        self.labels: NDArray[np.int64] = (ids % num_classes).astype(np.int64)
        noise = hash_words(int(Purpose.SYNTHETIC), self._salt, ids[:, None], np.arange(2))
        self.sizes: NDArray[np.int32] = (stored_size + noise % np.uint64(stored_size // 2 + 1)).astype(np.int32)

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.labels)

    def read(self, index: int) -> Encoded:
        """Make one image: uint8 (height, width, 3)."""
        width, height = self.sizes[index].tolist()
        pattern = hash_words(int(Purpose.SYNTHETIC), int(self.labels[index]), np.arange(4 * 4 * 3)).reshape(4, 4, 3) >> np.uint64(
            57
        )
        rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
        noise = hash_words(int(Purpose.SYNTHETIC), self._salt, index, np.arange((height * width * 3 + 7) // 8)).view(np.uint8)
        image: NDArray[np.uint8] = (noise[: height * width * 3].reshape(height, width, 3) >> 1).astype(np.uint8)
        image += pattern.astype(np.uint8)[rows[:, None], columns[None, :]]
        return Encoded(image, "raw", width, height)

    def name(self, index: int) -> str:
        """Return `synthetic-<split>#<number>`."""
        return f"synthetic-{self._split}#{index}"
