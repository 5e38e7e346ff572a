"""Counts by class equal those that anybody would make of all logits at once."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from src.batch import Batch
from src.data.plan import whole_images
from src.training.image_rows import ImageRows, first_classes
from src.training.tally import ClassCounts, Confused, Tally, class_table, worst

CLASSES, IMAGES = 7, 230
CPU = torch.device("cpu")


def made() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(0, CLASSES - 1, (IMAGES,), generator=generator)  # the last class has no image
    logits = torch.randn(IMAGES, CLASSES, generator=generator) + 1.5 * functional.one_hot(labels, CLASSES)
    return logits.round(decimals=1), labels  # with ties


def batches(logits: Tensor, labels: Tensor, size: int = 33) -> list[tuple[Batch, Tensor]]:
    found = []
    for start in range(0, len(labels), size):
        ids = np.arange(start, min(start + size, len(labels)), dtype=np.int64)
        plan = whole_images(ids, np.full((len(labels), 2), 8, np.int32))
        part = slice(start, start + size)
        found.append((Batch(torch.zeros(len(ids), 3, 1, 1, dtype=torch.uint8), labels[part], plan), logits[part]))
    return found


def counted(logits: Tensor, labels: Tensor) -> ClassCounts:
    tally = Tally(CLASSES, CPU)
    for batch, part in batches(logits, labels):
        tally(batch, part)
    return tally.counts()


def test_every_cell_is_what_a_loop_over_images_counts() -> None:
    logits, labels = made()
    found = counted(logits, labels)
    confusion, top5 = np.zeros((CLASSES, CLASSES), np.int64), np.zeros(CLASSES, np.int64)
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        order = sorted(range(CLASSES), key=lambda place: (-row[place], place))  # of equal ones the lower class comes first
        confusion[label, order[0]] += 1
        top5[label] += label in order[:5]
    assert (found.confusion == confusion).all() and (found.top5 == top5).all()
    assert found.confusion.sum() == IMAGES and not found.no_answer.any()
    assert (found.images == np.bincount(labels, minlength=CLASSES)).all()
    losses = functional.cross_entropy(logits.double(), labels, reduction="none")
    for label in range(CLASSES):
        assert found.loss[label] == pytest.approx(float(losses[labels == label].sum()), rel=1e-12)
    assert 0 < found.top1.sum() < found.top5.sum() < IMAGES


def test_a_row_of_nan_is_taken_for_nothing() -> None:
    logits, labels = made()
    logits[3, 2] = torch.nan
    logits[40] = torch.nan
    clean = torch.ones(IMAGES, dtype=torch.bool)
    clean[[3, 40]] = False
    found, rest = counted(logits, labels), counted(logits[clean], labels[clean])
    assert (found.confusion == rest.confusion).all()
    assert found.no_answer.sum() == 2 and (found.images == np.bincount(labels, minlength=CLASSES)).all()


def test_the_table_and_the_worst_classes() -> None:
    confusion = np.array([[8, 2, 0], [5, 5, 0], [0, 0, 0]])
    counts = ClassCounts(confusion, np.array([0, 2, 0]), np.array([10, 9, 0]), np.array([1.0, 6.0, 0.0]))
    first, second, none = class_table(counts, ("ant", "bee", "cow"))
    assert first == (0, "ant", 10, 80.0, 100.0, 0.1, 1, 2)
    assert second == (1, "bee", 12, 100 * 5 / 12, 75.0, 0.5, 0, 5)
    assert none == (2, "cow", 0, None, None, None, None, 0)
    assert worst([first, second, none], 10) == [second, first] and worst([first, second], 1) == [second]
    assert counts.confused() == [Confused(1, 0, 5), Confused(0, 1, 2)]


def test_rows_come_back_in_the_order_of_the_images() -> None:
    logits, labels = made()
    rows = ImageRows(lambda part: part, IMAGES)
    for batch, part in reversed(batches(logits, labels)):
        rows(batch, part)
    assert torch.equal(rows.gathered(), logits)


@pytest.mark.parametrize("which", [slice(1, None), slice(0, -1)])
def test_a_missing_image_has_no_row_and_that_is_an_error(which: slice) -> None:
    rows = ImageRows(lambda part: part, IMAGES)
    for batch, part in batches(*made())[which]:
        rows(batch, part)
    with pytest.raises(RuntimeError, match="not each of them one"):
        rows.gathered()


def test_the_first_classes_are_those_of_the_greatest_logits_and_of_equal_ones_the_lower() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0, 1.0], [800.0, -800.0, 0.0, 799.0]])
    found = first_classes(logits, 3)
    assert found[:, :3].tolist() == [[1, 2, 3], [0, 3, 2]]
    assert torch.allclose(found[:, 3:], logits.double().softmax(1).sort(1, descending=True).values[:, :3])
