"""The comparison counts what a plain loop counts, and lets nothing pass that is not close."""

import math

import pytest
import torch

from src.exporting.check import Comparison, ExportError, compare, require_batch_sizes, require_close, require_kept, run_form


def batches(*sizes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(size, 6, generator=generator), torch.randint(6, (size,), generator=generator)) for size in sizes]


def test_counts_are_a_plain_loop_s() -> None:
    shift = torch.tensor([0.0, 0.3, -0.2, 0.1, 0.0, 0.5])
    given = batches(5, 8, 1)
    compared = compare(lambda images: images, {"shifted": lambda images: images + shift}, given)
    rows = [(row, label) for images, labels in given for row, label in zip(images, labels, strict=True)]
    different = [number for number, (row, _) in enumerate(rows) if row.argmax() != (row + shift).argmax()]
    assert different, "the example shows something"
    found = compared.forms["shifted"]
    assert found.images == compared.model.images == 14
    assert found.different == len(different)
    assert {number for number, _ in found.ties} == set(different)
    for number, gap in found.ties:
        row = rows[number][0]
        assert gap == pytest.approx(float(row.max() - row[(row + shift).argmax()]))
    assert found.max_difference == pytest.approx(0.5, abs=1e-6)
    assert found.figures(labelled=True)["mean_difference"] == pytest.approx(float(shift.abs().mean()), abs=1e-6)
    assert found.largest_logit == pytest.approx(float(max(row.abs().max() for row, _ in rows)))
    hits = sum(int((row + shift).argmax() == label) for row, label in rows)
    assert found.figures(labelled=True)["acc1"] == pytest.approx(100 * hits / 14)
    assert compared.model.hits[0] == sum(int(row.argmax() == label) for row, label in rows)
    assert compared.smallest_margin == pytest.approx(min(float(row.topk(2).values.diff().abs()) for row, _ in rows))


def test_predictions_cannot_differ_where_the_margin_is_more_than_twice_the_difference() -> None:
    noise = torch.Generator().manual_seed(2)

    def near(images: torch.Tensor) -> torch.Tensor:
        return images + 0.02 * (torch.rand(images.shape, generator=noise) - 0.5)

    given = batches(400)
    compared = compare(lambda images: images, {"near": near}, given)
    for _, gap in compared.forms["near"].ties:
        assert gap <= 2 * compared.forms["near"].max_difference


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused_wherever_it_stands(bad: float) -> None:
    for place in (0, 2):
        found = Comparison()
        for number in range(3):
            logits = torch.zeros(2, 3)
            spoilt = logits.clone()
            if number == place:
                spoilt[1, 1] = bad
            found.add(logits, spoilt, None)
        with pytest.raises(ExportError, match=r"differs by (nan|inf)"):
            require_close("onnx", found, most=1e-3)


def test_the_bound_holds_exactly_and_grows_with_the_logits() -> None:
    def differing(scale: float, by: float) -> Comparison:
        found = Comparison()
        found.add(torch.full((1, 2), scale, dtype=torch.float64), torch.full((1, 2), scale + by, dtype=torch.float64), None)
        return found

    require_close("onnx", differing(0.5, 0.0009), most=1e-3)
    require_close("onnx", differing(1000.0, 0.9), most=1e-3)
    for scale, by in ((0.5, 0.0011), (1000.0, 1.1)):
        with pytest.raises(ExportError, match=r"max_difference=0\.001"):
            require_close("onnx", differing(scale, by), most=1e-3)


def test_a_form_that_is_wrong_for_one_batch_size_only_is_named_with_the_size() -> None:
    def wrong_at_three(images: torch.Tensor) -> torch.Tensor:
        return images + (len(images) == 3)

    with pytest.raises(ExportError, match=r"odd: a logit differs by 1 .* a batch of 3"):
        require_batch_sizes(lambda images: images, {"odd": wrong_at_three}, torch.randn(64, 4), (1, 3, 64), most=1e-3)


def test_a_form_that_fails_or_has_other_shapes_is_named() -> None:
    with pytest.raises(ExportError, match=r"odd fails on 2 images of \(3,\): must be whole"):
        run_form(
            "odd", lambda images: (_ for _ in ()).throw(ValueError("must be whole\nmore")), torch.zeros(2, 3), torch.zeros(2, 3)
        )
    with pytest.raises(ExportError, match=r"odd gives logits of shape \(2, 3\)"):
        run_form("odd", lambda images: images, torch.zeros(2, 3), torch.zeros(2, 4))


def test_hits_are_those_of_the_form_summed_over_batches() -> None:
    """The model ranks the classes 0, 1, ... 7, the form 7, 6, ... 0: a label tells its rank in both."""
    labels = [torch.tensor(part) for part in ([0, 4, 6], [0, 7], [1])]
    given = [(torch.arange(8.0, 0, -1).repeat(len(part), 1), part) for part in labels]
    compared = compare(lambda images: images, {"flipped": lambda images: images.flip(1)}, given)
    model, flipped = compared.model.figures(labelled=True), compared.forms["flipped"].figures(labelled=True)
    assert (model["acc1"], model["acc5"]) == pytest.approx((200 / 6, 400 / 6))
    assert (flipped["acc1"], flipped["acc5"]) == pytest.approx((100 / 6, 300 / 6))


def test_of_differing_predictions_the_ten_that_the_model_held_furthest_apart_are_kept() -> None:
    apart = [3, 14, 1, 8, 5, 12, 7, 2, 13, 6, 9, 4, 11, 10]
    rows = torch.stack([scale * torch.arange(8.0, 0, -1) for scale in apart])
    compared = compare(lambda images: images, {"flipped": lambda images: images.flip(1)}, [(part, None) for part in rows.split(5)])
    found = compared.forms["flipped"]
    assert found.different == 14
    assert found.ties == [(apart.index(scale), 7.0 * scale) for scale in range(14, 4, -1)]
    assert found.figures(labelled=False)["widest_different_margin"] == 98


def test_accuracy_is_told_only_where_every_image_has_a_label_and_a_margin_only_between_classes() -> None:
    images, labels = torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)
    assert compare(lambda each: each, {}, [(images, labels), (images, labels)]).labelled
    compared = compare(lambda each: each, {}, [(images, None), (images, labels)])
    assert not compared.labelled
    assert compared.smallest_margin == math.inf


def test_a_failure_without_words_is_named_by_its_type() -> None:
    with pytest.raises(ExportError, match=r"odd fails on 2 images of \(3,\): ZeroDivisionError"):
        run_form("odd", lambda images: (_ for _ in ()).throw(ZeroDivisionError()), torch.zeros(2, 3), torch.zeros(2, 3))


def test_what_costs_too_much_is_told_with_what_helps() -> None:
    for name, words in (("pruning", "finetune_epochs"), ("int8", "Leave int8 out of formats")):
        with pytest.raises(ExportError, match=words):
            require_kept(name, 2.0, most=1.0)
