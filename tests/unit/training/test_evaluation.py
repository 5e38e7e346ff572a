"""Evaluation counts every image once, divides once, and refuses a count that is not the split's."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from src.batch import Batch, BatchPlan
from src.training.evaluation import EvalResult, count
from src.training.precision import choose_precision

CPU = torch.device("cpu")
SIZES = (70, 70, 30)


class Wide(nn.Module):
    """Fixed logits from the pixels, with dropout to show the mode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.dropout = nn.Linear(12, 10), nn.Dropout(0.9)

    def forward(self, images: Tensor) -> Tensor:
        return self.dropout(self.fc(images.flatten(1)))


def batches(sizes: tuple[int, ...] = SIZES) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(3)
    for size in sizes:
        plan = BatchPlan(np.arange(size), np.zeros(size, np.uint64), np.zeros((size, 4), np.int32), np.zeros(size, np.bool_))
        pixels = torch.randint(0, 256, (size, 3, 2, 2), dtype=torch.uint8, generator=generator)
        yield Batch(pixels, torch.randint(0, 10, (size,), generator=generator), plan)


def evaluate(model: nn.Module, sizes: tuple[int, ...] = SIZES, num_images: int = sum(SIZES), *, flip: bool = False) -> EvalResult:
    return count(
        model,
        batches(sizes),
        normalise=lambda images: images / 255,
        precision=choose_precision("fp32", CPU),
        num_images=num_images,
        protocol={"split": "val"},
        device=CPU,
        flip=flip,
    )


def test_it_equals_one_pass_over_all_images_at_once() -> None:
    model = Wide().eval()
    found = evaluate(model)
    everything = list(batches())
    logits = model(torch.cat([batch.images for batch in everything]) / 255).detach().double()
    labels = torch.cat([batch.labels for batch in everything])
    assert found.loss == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-6)
    assert found.acc1 == pytest.approx(100 * float((logits.argmax(1) == labels).double().mean()))
    top5 = (logits.topk(5).indices == labels[:, None]).any(dim=1)
    assert found.acc5 == pytest.approx(100 * float(top5.double().mean()))
    assert (found.images, found.protocol) == (170, {"split": "val"})
    assert 0 < found.acc1 < found.acc5 < 100


def test_how_the_split_is_batched_changes_nothing() -> None:
    model = Wide().eval()
    pixels = torch.cat([batch.images for batch in batches()])
    labels = torch.cat([batch.labels for batch in batches()])
    plan = next(batches()).plan
    results = [
        count(
            model,
            (Batch(pixels[i : i + size], labels[i : i + size], plan) for i in range(0, 170, size)),
            normalise=lambda images: images / 255,
            precision=choose_precision("fp32", CPU),
            num_images=170,
            protocol={},
            device=CPU,
            flip=False,
        )
        for size in (10, 85, 170)
    ]
    assert len({(result.acc1, result.acc5) for result in results}) == 1
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-6) == pytest.approx(results[2].loss, rel=1e-6)


@pytest.mark.parametrize(("sizes", "counted"), [((70, 70), 140), ((70, 70, 30, 1), 171), ((), 0)])
def test_a_missing_or_repeated_batch_is_an_error_with_both_counts(sizes: tuple[int, ...], counted: int) -> None:
    with pytest.raises(RuntimeError, match=f"counted {counted} images, but the split has 170"):
        evaluate(Wide().eval(), sizes)


def test_no_gradient_is_kept() -> None:
    model = Wide().eval()
    evaluate(model)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()


def test_flip_is_ffcvs_sum_of_two_views() -> None:
    """ffcv-imagenet's validation loop: out = model(images); out += model(flipped images). The loss is that of the mean."""
    model = Wide().eval()
    found, plain = evaluate(model, flip=True), evaluate(model)
    everything = list(batches())
    pixels, labels = torch.cat([batch.images for batch in everything]) / 255, torch.cat([batch.labels for batch in everything])
    with torch.no_grad():
        summed = model(pixels)
        summed += model(torch.flip(pixels, dims=[3]))
    assert found.acc1 == pytest.approx(100 * float((summed.argmax(1) == labels).double().mean()))
    top5 = (summed.topk(5).indices == labels[:, None]).any(dim=1)
    assert found.acc5 == pytest.approx(100 * float(top5.double().mean()))
    assert found.loss == pytest.approx(float(functional.cross_entropy(summed.double() / 2, labels)), rel=1e-6)
    assert found.loss != pytest.approx(plain.loss, rel=1e-3)


def test_flip_changes_nothing_for_what_looks_the_same_in_a_mirror() -> None:
    symmetrical = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10)).eval()
    assert evaluate(symmetrical, flip=True)[1:] == evaluate(symmetrical)[1:]
    assert evaluate(symmetrical, flip=True).loss == pytest.approx(evaluate(symmetrical).loss, rel=1e-6)


def test_flip_under_autocast_adds_in_more_than_half_precision() -> None:
    """Both views are computed in bf16; their mean is not rounded to it."""
    model, seen = Wide().eval(), list[torch.dtype]()
    model.register_forward_hook(lambda _, args, output: seen.append(output.dtype))
    found = count(
        model,
        batches(),
        normalise=lambda images: (images / 255).bfloat16(),
        precision=choose_precision("bf16", CPU),
        num_images=sum(SIZES),
        protocol={},
        device=CPU,
        flip=True,
    )
    assert seen == [torch.bfloat16] * (2 * len(SIZES))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        losses = [
            functional.cross_entropy(
                (model(images).double() + model(images.flip(3)).double()) / 2, batch.labels, reduction="sum"
            ).double()
            for batch in batches()
            for images in [(batch.images / 255).bfloat16()]
        ]
    assert found.loss == pytest.approx(float(sum(losses)) / sum(SIZES), rel=1e-9)
