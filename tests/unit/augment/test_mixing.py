"""Mixup and cutmix: torchvision's pixels and targets for the same draws, exact weights, draws that belong to (seed, step, slot)."""

import numpy as np
import pytest
import torch
from scipy.stats import beta as beta_distribution
from scipy.stats import ks_2samp, kstest
from torchvision.transforms.v2 import CutMix, MixUp

from src.augment.mixing import Mixing, beta, cutmix, draw_box, mix_targets, mixup

N, K, HEIGHT, WIDTH = 12, 10, 20, 28
TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def batch(dtype=torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(N, 3, HEIGHT, WIDTH, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last)
    return images, torch.randint(0, K, (N,), generator=generator)


def rolled() -> torch.Tensor:
    """Return the permutation that torchvision mixes with."""
    return torch.arange(N).roll(1)


def reference(law, seed: int):
    """Run torchvision's own, and say what it drew."""

    class Told(law):
        def make_params(self, flat_inputs):
            self.params = super().make_params(flat_inputs)
            return self.params

    transform = Told(alpha=1.0, num_classes=K)
    torch.manual_seed(seed)
    return transform


@pytest.mark.parametrize("dtype", TYPES)
def test_mixup_is_torchvisions(dtype):
    images, labels = batch(dtype)
    for seed in range(20):
        theirs = reference(MixUp, seed)
        pixels, targets = theirs(images, labels)
        weight = theirs.params["lam"]
        assert torch.equal(mixup(images, rolled(), weight), pixels)
        assert torch.equal(mix_targets(labels, rolled(), weight, K), targets)


@pytest.mark.parametrize("dtype", TYPES)
def test_cutmix_is_torchvisions(dtype):
    images, labels = batch(dtype)
    for seed in range(20):
        theirs = reference(CutMix, seed)
        pixels, targets = theirs(images, labels)
        x1, y1, x2, y2 = theirs.params["box"]
        weight = 1.0 - (x2 - x1) * (y2 - y1) / (HEIGHT * WIDTH)
        assert torch.equal(cutmix(images.clone(), rolled(), (x1, y1, x2, y2)), pixels)
        assert torch.equal(mix_targets(labels, rolled(), weight, K), targets)


def test_the_layout_is_kept():
    images, _ = batch()
    assert mixup(images, rolled(), 0.3).is_contiguous(memory_format=torch.channels_last)
    assert mixup(images.contiguous(), rolled(), 0.3).shape == images.shape
    assert cutmix(images, rolled(), (2, 3, 9, 9)).is_contiguous(memory_format=torch.channels_last)


def test_any_permutation_and_targets_that_add_up():
    images, labels = batch()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    weight = 0.3
    mixed, targets = mixup(images, order, weight), mix_targets(labels, order, weight, K)
    for index, other in enumerate(order.tolist()):
        assert mixed[index] == pytest.approx(weight * images[index] + (1 - weight) * images[other], abs=1e-6)
        wanted = np.zeros(K)
        wanted[labels[index]] += weight
        wanted[labels[other]] += 1 - weight
        assert targets[index].numpy() == pytest.approx(wanted, abs=1e-7)
    assert targets.dtype == torch.float32
    assert targets.sum(1).numpy() == pytest.approx(np.ones(N), abs=1e-6)


def test_cutmix_weighs_by_the_pixels_that_were_pasted():
    law = Mixing(3, 0.0, 1.0, 1.0, 0.5)
    for step in range(50):
        mix = law.draw(step=step, slot=0, images=N, height=HEIGHT, width=WIDTH)
        images = torch.arange(N, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, HEIGHT, WIDTH).clone()
        mixed = cutmix(images, torch.from_numpy(mix.permutation), mix.box)
        for index, other in enumerate(mix.permutation.tolist()):
            if other != index:
                assert (mixed[index] == index).double().mean().item() == pytest.approx(mix.weight, abs=1e-12)
                assert (mixed[index] == other).double().mean().item() == pytest.approx(1 - mix.weight, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 4.0])
def test_weights_are_from_the_beta_distribution(alpha):
    drawn = [beta(key, alpha) for key in range(3_000)]
    assert 0 <= min(drawn) < max(drawn) <= 1
    assert kstest(drawn, beta_distribution(alpha, alpha).cdf).pvalue > 1e-3


def test_boxes_are_distributed_as_torchvisions():
    torch.manual_seed(0)
    theirs, image = CutMix(alpha=1.0, num_classes=K), torch.zeros(N, 3, HEIGHT, WIDTH)
    wanted = np.array([theirs.make_params([image])["box"] for _ in range(4_000)])
    found = np.array([draw_box(key, beta(key, 1.0), HEIGHT, WIDTH) for key in range(4_000)])
    for column in range(4):
        assert ks_2samp(found[:, column], wanted[:, column]).pvalue > 1e-4


def test_micro_batches_are_mixed_as_often_as_asked_for():
    def shares(law: Mixing) -> tuple[float, float]:
        drawn = [law.draw(step=step, slot=step % 3, images=4, height=HEIGHT, width=WIDTH) for step in range(2_000)]
        mixed = [mix for mix in drawn if mix is not None]
        return len(mixed) / len(drawn), sum(mix.box is not None for mix in mixed) / max(1, len(mixed))

    assert shares(Mixing(0, 0.2, 1.0, 1.0, 0.5)) == (1.0, pytest.approx(0.5, abs=0.05))
    assert shares(Mixing(0, 0.2, 1.0, 0.3, 0.8)) == (pytest.approx(0.3, abs=0.05), pytest.approx(0.8, abs=0.06))
    assert shares(Mixing(0, 0.0, 1.0, 1.0, 0.1)) == (1.0, 1.0)
    assert shares(Mixing(0, 0.2, 0.0, 1.0, 0.9)) == (1.0, 0.0)


def test_draws_belong_to_seed_step_and_slot():
    def drawn(seed=0, step=0, slot=0):
        mix = Mixing(seed, 0.2, 1.0, 1.0, 0.5).draw(step=step, slot=slot, images=16, height=32, width=32)
        return mix.weight, tuple(mix.permutation), mix.box

    assert drawn() == drawn()
    assert len({drawn(), drawn(seed=1), drawn(step=1), drawn(slot=1)}) == 4
    for _, permutation, _ in (drawn(step=step) for step in range(20)):
        assert sorted(permutation) == list(range(16))
