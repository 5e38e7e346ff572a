"""Random erasing: torchvision's law, boxes that belong to the key, zeros or noise."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, kstest
from torchvision.transforms.v2 import RandomErasing

from src.augment.erasing import Erasing

SCALE, RATIO = (0.02, 0.33), (0.3, 3.3)
DRAWN = 5_000


def law(probability=1.0, *, noise=False, scale=SCALE, ratio=RATIO) -> Erasing:
    return Erasing(probability, scale, ratio, noise)


@pytest.mark.parametrize(("scale", "ratio"), [(SCALE, RATIO), ((0.3, 1.0), (0.2, 5.0))])
def test_boxes_are_distributed_as_torchvisions(scale, ratio, keys):
    torch.manual_seed(2)
    reference, image = RandomErasing(p=1.0, scale=scale, ratio=ratio), torch.zeros(3, 48, 64)
    theirs = [reference.make_params([image]) for _ in range(DRAWN)]
    boxes = law(scale=scale, ratio=ratio).boxes(keys(DRAWN), 48, 64)
    kept = [params for params in theirs if params["v"] is not None]
    ours = boxes[boxes[:, 2] > 0]
    assert abs(len(kept) - len(ours)) < 4 * np.sqrt(DRAWN / 4)
    for column, name in enumerate("ijhw"):
        assert ks_2samp(ours[:, column], [params[name] for params in kept]).pvalue > 1e-4, name
    assert (ours[:, 2] < 48).all()
    assert (ours[:, 3] < 64).all()
    assert (ours[:, 0] + ours[:, 2] <= 48).all()
    assert (ours[:, 1] + ours[:, 3] <= 64).all()


def test_as_many_are_erased_as_asked_for(keys):
    boxes = law(0.25).boxes(keys(DRAWN), 48, 48)
    assert abs((boxes[:, 2] > 0).mean() - 0.25) < 0.03
    assert law(0.0).boxes(keys(100), 48, 48).sum() == 0
    assert (law(1.0).boxes(keys(1000), 48, 48)[:, 2] > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_only_the_box_is_erased_and_the_count_is_told(dtype, keys):
    images = torch.randn(40, 3, 32, 40).add_(5).to(dtype).contiguous(memory_format=torch.channels_last)
    before, some = images.clone(), keys(40)
    count = law(0.5).erase(images, some)
    boxes = law(0.5).boxes(some, 32, 40)
    assert count == (boxes[:, 2] > 0).sum()
    assert 10 < count < 30
    wanted = before.clone()
    for index, (y, x, height, width) in enumerate(boxes.tolist()):
        wanted[index, :, y : y + height, x : x + width] = 0
    assert torch.equal(images, wanted)


def test_noise_is_standard_normal_and_belongs_to_the_key(keys):
    images, some = torch.full((60, 3, 32, 32), 9.0), keys(60)
    law(noise=True).erase(images, some)
    noise = images[images != 9.0].numpy()
    assert kstest(noise, "norm").pvalue > 1e-3
    order = np.random.default_rng(1).permutation(60)
    turned = torch.full((60, 3, 32, 32), 9.0).contiguous(memory_format=torch.channels_last)
    torch.rand(3)  # the global generator has no part in it
    law(noise=True).erase(turned, some[order])
    assert torch.equal(turned, images[torch.from_numpy(order)])
    alone = torch.full((1, 3, 32, 32), 9.0)
    law(noise=True).erase(alone, some[7:8])
    assert torch.equal(alone[0], images[7])


def test_no_generator_of_torch_is_moved(keys):
    state = torch.get_rng_state()
    law(noise=True).erase(torch.zeros(8, 3, 32, 32), keys(8))
    assert torch.equal(torch.get_rng_state(), state)
