"""Whether an exported form computes what the model computes: logits side by side, on the same images."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from src.training.metrics import hits

Runs = Callable[[Tensor], Tensor]
_TIES_NAMED = 10


class ExportError(Exception):
    """An exported form does not compute what the model computes, or the disk did not do what it should."""


@dataclass
class Comparison:
    """One form against the model, counted over all images.

    Attributes:
        images: how many.
        max_difference: the largest |difference| of a logit; NaN where one of the two is not finite.
        largest_logit: the largest |logit| of the model.
        sum_difference: of |differences|, over images and classes.
        logits: how many were compared.
        different: of images whose highest logit is another class's.
        ties: of those, (image, how far apart the model holds these two classes), the widest first: at most ten.
        hits: top-1 and top-5 of the form.
    """

    images: int = 0
    max_difference: float = 0.0
    largest_logit: float = 0.0
    sum_difference: float = 0.0
    logits: int = 0
    different: int = 0
    ties: list[tuple[int, float]] = field(default_factory=list)
    hits: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, expected: Tensor, found: Tensor, labels: Tensor | None) -> None:
        """Count a batch.

        Args:
            expected: the model's logits, float32 (N, K).
            found: the form's, float32 (N, K).
            labels: int64 (N,), or None where there are none.
        """
        apart = (found.double() - expected.double()).abs()
        largest = float(apart.max())
        # max() of Python would lose a NaN on one side
        self.max_difference = math.nan if math.isnan(largest + self.max_difference) else max(self.max_difference, largest)
        self.largest_logit = max(self.largest_logit, float(expected.abs().max()))
        self.sum_difference += float(apart.sum())
        self.logits += apart.numel()
        ours, theirs = expected.argmax(1), found.argmax(1)
        for row in (ours != theirs).nonzero()[:, 0].tolist():
            gap = float(expected[row, ours[row]] - expected[row, theirs[row]])
            self.ties.append((self.images + row, gap))
        self.different += int((ours != theirs).sum())
        self.ties = sorted(self.ties, key=lambda tie: -tie[1])[:_TIES_NAMED]
        if labels is not None:
            self.hits = [sum(pair) for pair in zip(self.hits, hits(found, labels).tolist(), strict=True)]
        self.images += len(expected)

    def figures(self, *, labelled: bool) -> dict[str, Any]:
        """Return plain values for the result."""
        values: dict[str, Any] = {
            "max_difference": self.max_difference,
            "largest_logit": self.largest_logit,
            "mean_difference": self.sum_difference / max(self.logits, 1),
            "different_predictions": self.different,
        }
        if self.ties:
            values["widest_different_margin"] = self.ties[0][1]
        if labelled:
            values |= {"acc1": 100 * self.hits[0] / self.images, "acc5": 100 * self.hits[1] / self.images}
        return values


@dataclass
class Compared:
    """All forms against the model on the same images.

    Attributes:
        forms: by name.
        model: the model against itself: its accuracy.
        smallest_margin: between the model's first and second class, over all images: below twice a form's largest difference, a
            prediction could differ.
        labelled: whether the images have labels; noise has none.
    """

    forms: dict[str, Comparison]
    model: Comparison
    smallest_margin: float
    labelled: bool


def compare(model: Runs, forms: Mapping[str, Runs], batches: Iterable[tuple[Tensor, Tensor | None]]) -> Compared:
    """Run all of them on the same images.

    Args:
        model: what is right.
        forms: by name.
        batches: normalised images, float32 (N, 3, S, S), on the CPU, and their labels or None.

    Raises:
        ExportError: naming the form, if it fails or its logits have another shape.
    """
    compared = Compared({name: Comparison() for name in forms}, Comparison(), math.inf, labelled=True)
    for images, labels in batches:
        expected = model(images)
        compared.labelled &= labels is not None
        compared.model.add(expected, expected, labels)
        if expected.shape[1] > 1:
            first, second = expected.topk(2, dim=1).values.unbind(1)
            compared.smallest_margin = min(compared.smallest_margin, float((first - second).min()))
        for name, form in forms.items():
            compared.forms[name].add(expected, run_form(name, form, images, expected), labels)
    return compared


def run_form(name: str, form: Runs, images: Tensor, expected: Tensor) -> Tensor:
    """Run a form, and name it where it fails, or its logits have another shape than the model's.

    Raises:
        ExportError: see above.
    """
    try:
        found = form(images)
    except Exception as error:  # of runtimes of any kind
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ExportError(f"{name} fails on {len(images)} images of {tuple(images.shape[1:])}: {first}") from error
    if found.shape != expected.shape:
        raise ExportError(f"{name} gives logits of shape {tuple(found.shape)} where the model gives {tuple(expected.shape)}")
    return found


def require_batch_sizes(model: Runs, forms: Mapping[str, Runs], images: Tensor, sizes: Iterable[int], *, most: float) -> None:
    """See that forms take any number of images.

    Args:
        model: what is right.
        forms: by name.
        images: float32 (N, 3, S, S), at least as many as the largest size.
        sizes: of batches.
        most: see require_close.

    Raises:
        ExportError: naming the form and the size.
    """
    for size in sizes:
        expected = model(images[:size])
        for name, form in forms.items():
            found = Comparison()
            found.add(expected, run_form(name, form, images[:size], expected), None)
            require_close(name, found, most=most, where=f"a batch of {size}")


def require_close(name: str, found: Comparison, *, most: float, where: str | None = None) -> None:
    """Refuse a form that is further from the model than it may.

    Args:
        name: the form's.
        found: beside the model.
        most: the largest difference of a logit; where logits are above 1, as a share of the largest, for so rounding grows.
        where: which images these were.

    Raises:
        ExportError: with the difference.
    """
    allowed = most * max(1.0, found.largest_logit)
    if not found.max_difference <= allowed:  # a NaN is refused
        raise ExportError(
            f"{name}: a logit differs by {found.max_difference:.3g} from the model's, on {where or f'{found.images:,} images'}; "
            f"max_difference={most:g} allows {allowed:.3g}. Nothing was written. Leave the format out, or allow more."
        )


def require_kept(name: str, lost: float, *, most: float) -> None:
    """Refuse what costs too much accuracy.

    Args:
        name: of what was done to the model.
        lost: points of top-1.
        most: that may be lost.

    Raises:
        ExportError: with the loss.
    """
    if not lost <= most:
        advice = "Train on for longer (finetune_epochs)" if name == "pruning" else "Leave int8 out of formats"
        raise ExportError(
            f"{name} costs {lost:.3f} points of top-1; max_drop={most:g} is allowed. Nothing was exported. {advice}, or allow more."
        )
