"""What the tests of augmentation share: pictures with every kind of pixel, and keys."""

import numpy as np
import pytest
import torch


@pytest.fixture
def pictures():
    """Make uint8 (n, 3, size, size): noise, smooth, flat and almost flat ones, in turn."""

    def make(count: int, size: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(size)
        noise = torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
        coarse = torch.rand((count, 3, 5, 5), generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp_(0, 1).mul_(255).to(torch.uint8)
        flat = noise[:, :, :1, :1].expand(-1, -1, size, size).clone()
        almost = flat.clone()
        almost[:, 1, 2:5] = 200
        return torch.stack([(noise, smooth, flat, almost)[place % 4][place] for place in range(count)])

    return make


@pytest.fixture
def keys():
    """Make uint64 (n,) keys."""
    return lambda count, seed=0: np.random.default_rng(seed).integers(0, 2**63, count).astype(np.uint64)
