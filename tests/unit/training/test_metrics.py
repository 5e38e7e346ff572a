"""Hits against a sorted twin, ties and NaN included; sums that lose nothing over an epoch and over a resume."""

import math

import pytest
import torch
from torch import Tensor

from src.training.metrics import Means, Meter, NotMeasured, hits

CPU = torch.device("cpu")


def slow_hits(logits: Tensor, labels: Tensor) -> list[int]:
    """Sort each row by falling logit, equals by rising class, and look the label up."""
    top1 = top5 = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        if math.isnan(row[label]):
            continue
        order = sorted(range(len(row)), key=lambda k: (-math.inf if math.isnan(row[k]) else -row[k], k))
        place = order.index(label)
        top1, top5 = top1 + (place < 1), top5 + (place < 5)
    return [top1, top5]


@pytest.mark.parametrize("num_classes", [2, 3, 4, 5, 6, 10, 100])
@pytest.mark.parametrize("kind", ["different", "many ties", "some NaN", "some infinite"])
def test_hits_equal_a_sorted_twin(num_classes: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(num_classes)
    logits = torch.randn(300, num_classes, generator=generator)
    labels = torch.randint(0, num_classes, (300,), generator=generator)
    if kind == "many ties":
        logits = logits.round()
    if kind == "some NaN":
        logits[torch.rand(logits.shape, generator=generator) < 0.2] = math.nan
    if kind == "some infinite":
        logits[torch.rand(logits.shape, generator=generator) < 0.2] = math.inf
    assert hits(logits, labels).tolist() == slow_hits(logits, labels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_hits_take_every_type(dtype: torch.dtype) -> None:
    logits = torch.tensor([[1, 3, 2, 0, -1, -2], [9, 8, 7, 6, 5, 4]], dtype=dtype)
    assert hits(logits, torch.tensor([1, 5])).tolist() == [1, 1]
    assert hits(logits, torch.tensor([1, 4])).tolist() == [1, 2]


def test_a_tie_goes_to_the_lower_class_as_argmax_decides() -> None:
    logits = torch.zeros(6, 6)
    assert hits(logits, torch.arange(6)).tolist() == [1, 5]
    assert logits.argmax(dim=1).eq(torch.arange(6)).sum() == 1


@pytest.mark.parametrize("num_classes", [2, 4, 5, 10])
def test_a_row_of_nan_is_no_hit(num_classes: int) -> None:
    assert hits(torch.full((3, num_classes), math.nan), torch.tensor([0, 1, 1])).tolist() == [0, 0]


def test_the_logits_are_not_changed() -> None:
    logits = torch.randn(8, 10)
    before = logits.clone()
    hits(logits, torch.arange(8))
    assert torch.equal(logits, before)


def batches() -> list[tuple[Tensor, Tensor, Tensor, int]]:
    generator = torch.Generator().manual_seed(0)
    sizes = (8, 3, 8, 1)
    return [
        (
            torch.rand((), generator=generator),
            torch.randn(n, 10, generator=generator),
            torch.randint(0, 10, (n,), generator=generator),
            n // 4,
        )
        for n in sizes
    ]


def numbers(means: Means) -> tuple[float, ...]:
    """Return all that is no mapping."""
    return tuple(means[:5])


def expected(rows: list[tuple[Tensor, Tensor, Tensor, int]]) -> tuple[float, float, float, int, int]:
    count = sum(len(labels) for _, _, labels, _ in rows)
    loss = sum(float(loss) * len(labels) for loss, _, labels, _ in rows) / count
    found = [slow_hits(logits, labels) for _, logits, labels, _ in rows]
    replaced = sum(row[3] for row in rows)
    return loss, 100 * sum(h[0] for h in found) / count, 100 * sum(h[1] for h in found) / count, count, replaced


def test_windows_and_epoch_divide_counts_and_never_average_averages() -> None:
    meter, rows = Meter(CPU), batches()
    for row in rows[:2]:
        meter.update(*row)
    assert numbers(meter.window()) == pytest.approx(expected(rows[:2]))
    for row in rows[2:]:
        meter.update(*row)
    assert numbers(meter.window()) == pytest.approx(expected(rows[2:]))
    assert numbers(meter.epoch()) == pytest.approx(expected(rows))
    assert numbers(meter.epoch()) == numbers(meter.window()) == (0.0, 0.0, 0.0, 0, 0)
    meter.update(*rows[3])
    assert numbers(meter.window()) == numbers(meter.epoch()) == pytest.approx(expected(rows[3:]))


def test_a_meter_goes_on_from_its_state_to_the_last_bit() -> None:
    whole, rows = Meter(CPU), batches()
    for row in rows[:2]:
        whole.update(*row)
    whole.window()
    whole.update(*rows[2])
    state = whole.state()
    resumed = Meter(CPU)
    resumed.load(state)
    assert state.dtype == torch.float64
    assert state.shape == (2, 5)
    for meter in (whole, resumed):
        meter.update(*rows[3])
    assert torch.equal(whole.state(), resumed.state())
    assert whole.window() == resumed.window()
    assert whole.epoch() == resumed.epoch()


def test_a_state_does_not_change_with_the_meter_it_was_taken_from() -> None:
    meter, rows = Meter(CPU), batches()
    meter.update(*rows[0])
    state = meter.state()
    before = state.clone()
    meter.update(*rows[1])
    assert torch.equal(state, before)


def test_sums_are_float64_so_that_a_long_epoch_loses_nothing() -> None:
    meter = Meter(CPU)
    logits, labels = torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)
    meter.update(torch.tensor(2.0**24), logits, labels)
    for _ in range(4):
        meter.update(torch.tensor(1.0), logits, labels)
    assert meter.epoch().loss * 5 == 2.0**24 + 4  # float32 would stay at 2**24


def test_the_loss_enters_detached() -> None:
    meter = Meter(CPU)
    loss = torch.ones((), requires_grad=True) * 2
    meter.update(loss, torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))
    assert not meter.state().requires_grad


def test_mixed_targets_count_by_the_greater_share() -> None:
    meter = Meter(CPU)
    logits = torch.eye(10)[[3, 4, 5]]
    shares = torch.tensor([[0.3, 3, 0.7, 4], [0.3, 4, 0.7, 2], [0.5, 1, 0.5, 5]])
    targets = torch.zeros(3, 10)
    for row, (one, first, other, second) in enumerate(shares.tolist()):
        targets[row, int(first)] += one
        targets[row, int(second)] += other
    meter.update(torch.tensor(1.0), logits, targets)
    assert meter.epoch().acc1 == 0.0
    meter.update(torch.tensor(1.0), torch.eye(10)[[4, 2, 1]], targets)
    assert meter.epoch().acc1 == 100.0  # of equal shares the lower class


def test_what_is_watched_is_averaged_over_images_and_survives_a_resume() -> None:
    whole = Meter(CPU, ("mix_lambda", "erased"))
    rows = [(*row, {"mix_lambda": 0.25 * len(row[2]), "erased": float(place)}) for place, row in enumerate(batches())]
    for row in rows[:2]:
        whole.update(*row)
    assert whole.window().watched == {"mix_lambda": 0.25, "erased": 1 / 11}
    whole.update(*rows[2])
    state = whole.state()
    assert state.shape == (2, 7)
    resumed = Meter(CPU, ("mix_lambda", "erased"))
    resumed.load(state)
    for meter in (whole, resumed):
        meter.update(*rows[3])
    assert whole.window() == resumed.window()
    assert whole.epoch() == resumed.epoch()
    assert whole.epoch().watched == {"mix_lambda": 0.0, "erased": 0.0}


def test_a_second_pass_is_not_measured() -> None:
    NotMeasured().update(*batches()[0], {"mix_lambda": 1.0})
