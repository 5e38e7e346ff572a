"""What an evaluation, or a prediction of unlabelled images, leaves in a folder. Each file is written whole or not at all."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.files import write_atomically
from src.tracking.confusion_plot import confusion_figure
from src.tracking.plots import save_png
from src.tracking.tables import write_csv

RESULT, PER_CLASS, CONFUSED = "result.json", "per_class.csv", "confused.csv"
CONFUSION, PICTURE, LOGITS = "confusion.npz", "confusion.png", "logits.npz"
PREDICTIONS, SUBMISSION = "predictions.csv", "submission.csv"


def write_counts(
    target: Path,
    *,
    title: str,
    classes: Sequence[str],
    names: Sequence[str],
    confusion: NDArray[np.int64],
    no_answer: NDArray[np.int64],
    confused: Sequence[tuple[int, int, int]],
    per_class: Iterable[Sequence[object]],
) -> None:
    """Write the table by class, the confused pairs, and the confusion matrix as numbers and as a picture.

    Args:
        target: the folder.
        title: of the picture.
        classes: by label, as the data has them.
        names: of the classes, for people.
        confusion: int64 (K, K), images of class i that were taken for class j.
        no_answer: int64 (K,), images whose logits are not numbers.
        confused: (label, taken for, images), the most frequent first.
        per_class: label, images, acc1, acc5, loss, label it was taken for, images of it.

    Raises:
        OSError: if one cannot be written.
    """
    header = ("label", "class", "name", "images", "acc1", "acc5", "loss", "confused_label", "confused_class", "confused_images")
    rows = []
    for label, images, acc1, acc5, loss, other, times in per_class:
        assert isinstance(label, int)
        other_class = classes[other] if isinstance(other, int) else None
        rows.append((label, classes[label], names[label], images, acc1, acc5, loss, other, other_class, times))
    write_csv(target / PER_CLASS, header, rows)
    images = confusion.sum(axis=1) + no_answer
    pairs = (
        (times, 100 * times / int(images[label]), label, classes[label], names[label], other, classes[other], names[other])
        for label, other, times in confused
    )
    columns = ("images", "percent_of_class", "label", "class", "name", "taken_for_label", "taken_for_class", "taken_for_name")
    write_csv(target / CONFUSED, columns, pairs)
    _write_arrays(target / CONFUSION, {"counts": confusion, "no_answer": no_answer, "classes": np.array(classes)})
    named = [(names[label], names[other], times) for label, other, times in confused]
    save_png(confusion_figure(title=title, confusion=confusion, names=names, pairs=named), target / PICTURE)


def write_result(target: Path, result: Mapping[str, Any]) -> None:
    """Write the figures, last: where they are, the rest is.

    Raises:
        OSError: if it cannot be written.
    """
    write_atomically(target / RESULT, (json.dumps(result, indent=2) + "\n").encode())


def write_logits(target: Path, *, images: Sequence[str], labels: NDArray[np.int64] | None, logits: NDArray[np.float32]) -> None:
    """Write every image's logits (n, K), with its name and, where it has one, its label.

    Raises:
        OSError: if it cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {"images": np.array(images), "logits": logits}
    _write_arrays(target / LOGITS, arrays | ({"labels": labels} if labels is not None else {}))


def write_predictions(
    target: Path,
    *,
    files: Sequence[str],
    classes: Sequence[str],
    labels: Sequence[Sequence[int]],
    probabilities: Sequence[Sequence[float]],
) -> None:
    """Write a row for each image: its file, then the first classes by label and name, with their probabilities.

    Raises:
        OSError: if it cannot be written.
    """
    count = len(labels[0])
    header = ["file", *(f"{what}_{place}" for place in range(1, count + 1) for what in ("label", "class", "probability"))]
    rows = (
        [file, *(field for label, share in zip(own, shares, strict=True) for field in (label, classes[label], f"{share:.6f}"))]
        for file, own, shares in zip(files, labels, probabilities, strict=True)
    )
    write_csv(target / PREDICTIONS, header, rows)


def write_submission(target: Path, *, files: Sequence[str], sizes: NDArray[np.int32], labels: Sequence[Sequence[int]]) -> None:
    """Write Kaggle's form of the ImageNet Object Localization Challenge: ImageId,PredictionString.

    The competition's data page: an image's id without .JPEG; a prediction is five whole numbers, the class and the corners of a box
    (x_min, y_min, x_max, y_max), and up to five predictions of an image stand in one string. The class is the line of
    LOC_synset_mapping.txt, counted from 1: the place among the sorted wnids. A classifier finds no boxes: each is the whole image.

    Raises:
        OSError: if it cannot be written.
    """
    rows = (
        (Path(file).stem, " ".join(f"{label + 1} 0 0 {width - 1} {height - 1}" for label in own))
        for file, own, (width, height) in zip(files, labels, sizes.tolist(), strict=True)
    )
    write_csv(target / SUBMISSION, ("ImageId", "PredictionString"), rows)


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **dict(arrays))
    write_atomically(path, file.getvalue())
