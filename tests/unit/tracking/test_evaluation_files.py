"""The files that an evaluation leaves: tables that a csv reader reads, counts, and a picture that shows every cell."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.imagenet.labels.tables import read_solution
from src.imagenet.wnids import imagenet_wnids
from src.tracking import evaluation_files
from src.tracking.confusion_plot import confusion_figure
from src.tracking.plots import save_png


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(target: Path) -> None:
    evaluation_files.write_counts(
        target,
        title="$run$: x",
        classes=("a,b", "n2"),
        names=('say "a"', "bee"),
        confusion=np.array([[3, 1], [0, 2]]),
        no_answer=np.array([0, 1]),
        confused=[(0, 1, 1)],
        per_class=[(0, 4, 75.0, 100.0, 1 / 3, 1, 1), (1, 3, 200 / 3, 100.0, None, None, 0)],
    )


def test_tables_and_counts_are_read_back(tmp_path: Path) -> None:
    write(tmp_path)
    first, second = read(tmp_path / "per_class.csv")
    assert (first["class"], first["name"], first["confused_class"], first["confused_images"]) == ("a,b", 'say "a"', "n2", "1")
    assert float(first["loss"]) == 1 / 3 and float(second["acc1"]) == 200 / 3
    assert (second["loss"], second["confused_label"], second["confused_class"]) == ("", "", "")
    assert read(tmp_path / "confused.csv") == [
        {
            "images": "1", "percent_of_class": "25.0", "label": "0", "class": "a,b", "name": 'say "a"',
            "taken_for_label": "1", "taken_for_class": "n2", "taken_for_name": "bee",
        }
    ]  # fmt: skip
    with np.load(tmp_path / "confusion.npz", allow_pickle=False) as found:
        assert found["counts"].tolist() == [[3, 1], [0, 2]] and found["no_answer"].tolist() == [0, 1]
        assert found["classes"].tolist() == ["a,b", "n2"]


@pytest.mark.parametrize("count", [10, 1000])
def test_one_wrong_image_in_fifty_can_be_seen_at_its_place(tmp_path: Path, count: int) -> None:
    """A cell is a whole number of pixels, one at least: the picture differs where the one image is, by a visible shade."""
    names = [f"class {label}" for label in range(count)]
    clean = 50 * np.eye(count, dtype=np.int64)
    wrong = clean.copy()
    row, column = count // 2, count - 2
    wrong[row, row], wrong[row, column] = 49, 1
    pictures = []
    for number, confusion in enumerate((clean, wrong)):
        path = tmp_path / f"{number}.png"
        save_png(confusion_figure(title="t", confusion=confusion, names=names, pairs=[]), path)
        with Image.open(path) as image:
            pictures.append(np.asarray(image.convert("RGB")).astype(int))
    apart = np.abs(pictures[0] - pictures[1]).max(axis=2)
    cell = 70 if count == 10 else 1
    seen = np.argwhere(apart > (15 if count == 10 else 80))
    if count == 10:  # the numbers in the cells change, too
        assert len(seen) > cell * cell // 2
        assert (np.ptp(seen, axis=0) < [cell, (column - row + 1) * cell]).all()
        return
    assert len(seen) == 1
    diagonal = np.argwhere((apart > 0) & (apart <= 80))
    assert (seen[0] - diagonal[0]).tolist() == [0, column - row]


def test_a_submission_has_kaggles_form(tmp_path: Path) -> None:
    """Five whole numbers a prediction, the class counted from 1 as LOC_synset_mapping.txt has it, the box the whole image."""
    files = ["ILSVRC2012_test_00000001.JPEG", "ILSVRC2012_test_00000002.JPEG"]
    labels = [[0, 999, 3, 4, 5], [1, 2, 3, 4, 5]]
    evaluation_files.write_submission(tmp_path, files=files, sizes=np.array([[500, 375], [20, 30]], np.int32), labels=labels)
    first, second = read(tmp_path / "submission.csv")
    assert list(first) == ["ImageId", "PredictionString"]
    assert first["ImageId"] == "ILSVRC2012_test_00000001"
    assert first["PredictionString"].startswith("1 0 0 499 374 1000 0 0 499 374 4 0 0 499 374 ")
    assert second["PredictionString"].split()[:5] == ["2", "0", "0", "19", "29"]
    assert all(len(row["PredictionString"].split()) == 25 for row in (first, second))


def test_the_class_of_a_submission_is_the_line_of_kaggles_table(tmp_path: Path) -> None:
    """With wnids in the place of the numbers it has the form of LOC_val_solution.csv, which our reader reads."""
    label = imagenet_wnids().index("n03995372")
    names = ["ILSVRC2012_val_00048981.JPEG"]
    evaluation_files.write_submission(tmp_path, files=names, sizes=np.array([[500, 273]], np.int32), labels=[[label]])
    text = (tmp_path / "submission.csv").read_text()
    assert text.splitlines()[1] == f"ILSVRC2012_val_00048981,{label + 1} 0 0 499 272"
    solution = tmp_path / "solution.csv"
    solution.write_text(text.replace(f",{label + 1} ", f",{imagenet_wnids()[label]} "))
    assert read_solution(solution) == {"ILSVRC2012_val_00048981": "n03995372"}


def test_predictions_are_one_row_an_image(tmp_path: Path) -> None:
    evaluation_files.write_predictions(
        tmp_path, files=["a.png", "b,c.png"], classes=("x", "y"), labels=[[1, 0], [0, 1]], probabilities=[[0.75, 0.25], [1.0, 0.0]]
    )
    assert read(tmp_path / "predictions.csv") == [
        {"file": "a.png", "label_1": "1", "class_1": "y", "probability_1": "0.750000", "label_2": "0", "class_2": "x",
         "probability_2": "0.250000"},
        {"file": "b,c.png", "label_1": "0", "class_1": "x", "probability_1": "1.000000", "label_2": "1", "class_2": "y",
         "probability_2": "0.000000"},
    ]  # fmt: skip
