"""The losses are torch's, timm's and Composer's, on labels and on mixed targets, in float32 at least."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from timm.data.mixup import mixup_target
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.nn import functional

from src.training.losses import build_criterion

N, K = 24, 10
SMOOTHINGS = (0.0, 0.08, 0.1, 0.5)


def criterion(**changes: Any) -> Any:
    settings: dict[str, Any] = {"loss": "cross_entropy", "label_smoothing": 0.0, "bce_threshold": None, "bce_sum_classes": False}
    return build_criterion(**(settings | changes))


def logits(dtype: torch.dtype = torch.float32) -> Tensor:
    return (3 * torch.randn(N, K, generator=torch.Generator().manual_seed(0))).to(dtype).requires_grad_()


def labels() -> Tensor:
    return torch.randint(0, K, (N,), generator=torch.Generator().manual_seed(1))


def mixed(lam: float = 0.3) -> Tensor:
    """Shares of two labels, as ours and torchvision's mixup make them: not smoothed."""
    one_hot = functional.one_hot(labels(), K).float()
    return one_hot * lam + one_hot.roll(1, 0) * (1 - lam)


def loss_and_gradient(loss: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
    x = logits()
    value = loss(x, targets)
    value.backward()
    assert x.grad is not None
    return value.detach(), x.grad


def assert_same(
    ours: Any, theirs: Any, targets: Tensor, their_targets: Tensor | None = None, *, bound: float | None = None
) -> None:
    (value, gradient), (other, other_gradient) = (
        loss_and_gradient(ours, targets),
        loss_and_gradient(theirs, targets if their_targets is None else their_targets),
    )
    if bound is None:
        assert torch.equal(value, other)
        assert torch.equal(gradient, other_gradient)
    else:
        torch.testing.assert_close(value, other, rtol=bound, atol=0)
        torch.testing.assert_close(gradient, other_gradient, rtol=bound, atol=1e-8)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("targets", [labels(), mixed()], ids=["labels", "mixed"])
def test_cross_entropy_is_torchs_bit_for_bit(smoothing: float, targets: Tensor) -> None:
    """torchvision's recipe: nn.CrossEntropyLoss(label_smoothing) on labels, and on what its RandomMixup and RandomCutmix make."""
    assert_same(criterion(label_smoothing=smoothing), nn.CrossEntropyLoss(label_smoothing=smoothing), targets)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_cross_entropy_of_mixed_targets_is_timms(smoothing: float) -> None:
    """timm smooths while it mixes: smoothing is linear, so it is the same."""
    theirs = mixup_target(labels(), K, lam=0.3, smoothing=smoothing)
    ours = functional.one_hot(labels(), K).float()
    assert_same(criterion(label_smoothing=smoothing), SoftTargetCrossEntropy(), ours * 0.3 + ours.flip(0) * 0.7, theirs, bound=2e-6)


@pytest.mark.parametrize("sum_classes", [False, True])
@pytest.mark.parametrize("threshold", [None, 0.2])
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_bce_of_labels_is_timms(smoothing: float, threshold: float | None, sum_classes: bool) -> None:
    ours = criterion(loss="bce", label_smoothing=smoothing, bce_threshold=threshold, bce_sum_classes=sum_classes)
    theirs = BinaryCrossEntropy(smoothing=smoothing, target_threshold=threshold, sum_classes=sum_classes)
    assert_same(ours, theirs, labels(), bound=1e-6)


@pytest.mark.parametrize("sum_classes", [False, True])
@pytest.mark.parametrize("threshold", [None, 0.2, 0.35])
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("lam", [0.25, 0.5, 0.85])
def test_bce_of_mixed_targets_is_timms(lam: float, smoothing: float, threshold: float | None, sum_classes: bool) -> None:
    """timm's training: its Mixup smooths and mixes, its loss then takes the targets as they are."""
    ours = criterion(loss="bce", label_smoothing=smoothing, bce_threshold=threshold, bce_sum_classes=sum_classes)
    theirs = BinaryCrossEntropy(smoothing=smoothing, target_threshold=threshold, sum_classes=sum_classes)
    one_hot = functional.one_hot(labels(), K).float()
    targets = one_hot * lam + one_hot.flip(0) * (1 - lam)
    assert_same(ours, theirs, targets, mixup_target(labels(), K, lam=lam, smoothing=smoothing), bound=2e-6)


def test_the_threshold_looks_at_smoothed_targets() -> None:
    """0.22 of a label is 0.22 * 0.7 + 0.03 = 0.184 after smoothing by 0.3: below 0.2."""
    targets = torch.zeros(N, K)
    targets[:, 0], targets[:, 1] = 0.22, 0.78
    only_second = functional.one_hot(torch.ones(N, dtype=torch.int64), K).float()
    smoothed = criterion(loss="bce", label_smoothing=0.3, bce_threshold=0.2)
    assert torch.equal(smoothed(logits(), targets), functional.binary_cross_entropy_with_logits(logits(), only_second))
    both = only_second + functional.one_hot(torch.zeros(N, dtype=torch.int64), K)
    plain = criterion(loss="bce", bce_threshold=0.2)
    assert torch.equal(plain(logits(), targets), functional.binary_cross_entropy_with_logits(logits(), both))


@pytest.mark.parametrize("targets", [labels(), mixed()], ids=["labels", "mixed"])
def test_bce_summed_over_classes_is_composers(targets: Tensor) -> None:
    """Composer's binary_cross_entropy_with_logits: -log sigmoid of the true class, and of the others' negations, a sample's sum."""
    smoothing = 0.08
    share = targets.double() if targets.ndim == 2 else functional.one_hot(targets, K).double()
    share = share * (1 - smoothing) + smoothing / K
    x = logits().detach().double()
    twin = -(share * torch.log(1 / (1 + torch.exp(-x))) + (1 - share) * torch.log(1 / (1 + torch.exp(x)))).sum() / N
    ours = criterion(loss="bce", label_smoothing=smoothing, bce_sum_classes=True)(logits().detach(), targets)
    assert float(ours) == pytest.approx(float(twin), rel=1e-6)
    mean = criterion(loss="bce", label_smoothing=smoothing)(logits().detach(), targets)
    assert float(ours) == pytest.approx(K * float(mean), rel=1e-6)


@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothing_mixed_targets_is_mixing_smoothed_losses(loss: str, smoothing: float) -> None:
    """Both losses are linear in the targets: lambda of the one label's loss and the rest of the other's."""
    one = criterion(loss=loss, label_smoothing=smoothing)
    parts = 0.25 * one(logits().double(), labels()) + 0.75 * one(logits().double(), labels().roll(1, 0))
    torch.testing.assert_close(one(logits().double(), mixed(0.25).double()), parts, rtol=1e-12, atol=0)


@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("targets", [labels(), mixed()], ids=["labels", "mixed"])
def test_under_autocast_it_is_computed_in_float32(loss: str, dtype: torch.dtype, targets: Tensor) -> None:
    one, half = criterion(loss=loss, label_smoothing=0.1), logits(dtype)
    with torch.autocast("cpu", dtype=dtype):
        value = one(half, targets)
    assert value.dtype == torch.float32
    assert torch.equal(value, one(half.float(), targets))
    value.backward()
    assert half.grad is not None
    assert half.grad.dtype == dtype


@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
def test_float64_stays_float64(loss: str) -> None:
    one = criterion(loss=loss, label_smoothing=0.1)
    assert one(logits().double(), labels()).dtype == torch.float64
    assert one(logits().double(), mixed()).dtype == torch.float64


def test_large_logits_stay_finite() -> None:
    far = torch.tensor([[1e4, -1e4, 0.0]])
    for loss in ("cross_entropy", "bce"):
        values = [float(criterion(loss=loss, label_smoothing=s)(far, torch.tensor([1]))) for s in (0.0, 0.1)]
        assert all(torch.isfinite(torch.tensor(values)))
        assert all(a != b for a, b in pairwise(values)), "smoothing is not read"
