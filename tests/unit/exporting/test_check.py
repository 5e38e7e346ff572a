"""The comparison counts what a plain loop counts, and lets nothing pass that is not close."""

import math

import pytest
import torch

from src.exporting.check import Comparison, ExportError, compare, require_batch_sizes, require_close, run_form


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
