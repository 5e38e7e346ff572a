"""metrics.jsonl keeps every row through a kill, and gives up those that a resumed run will write again."""

import json
from pathlib import Path

import pytest

from src.batch import Record
from src.tracking.jsonl import JsonlTracker, cut_back, read_rows


def record(step: int, kind: str = "train") -> Record:
    return Record("epoch" if kind == "epoch" else "train", step, step // 10, {"train/loss": 0.1 * step})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "metrics.jsonl"
    tracker = JsonlTracker(file)
    for step in (5, 10, 15):
        tracker.log(record(step))
    tracker.log(record(15, "epoch"))
    tracker.close()
    return file


def test_a_row_is_in_the_file_the_moment_it_is_logged(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path / "m.jsonl")
    tracker.log(record(10))
    tracker.advance(11)
    assert (tmp_path / "m.jsonl").read_text() == '{"kind": "train", "step": 10, "epoch": 1, "train/loss": 1.0}\n'
    tracker.sync()
    tracker.close()


def test_numbers_come_back_to_the_last_bit(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path / "m.jsonl")
    value = 0.1 + 0.2
    tracker.log(Record("train", 1, 0, {"train/loss": value, "tiny": 5e-324}))
    tracker.close()
    assert read_rows(tmp_path / "m.jsonl") == [{"kind": "train", "step": 1, "epoch": 0, "train/loss": value, "tiny": 5e-324}]


def test_a_second_process_appends(path: Path) -> None:
    tracker = JsonlTracker(path)
    tracker.log(record(20))
    tracker.close()
    assert [row["step"] for row in read_rows(path)] == [5, 10, 15, 15, 20]


@pytest.mark.parametrize("part", ['{"kind": "train", "step": 2', "{", '{"kind": "train", "step": 20, "epoch": 2}'])
def test_a_last_line_without_its_end_is_left_out(path: Path, part: str) -> None:
    with open(path, "a") as file:
        file.write(part)
    assert [row["step"] for row in read_rows(path)] == [5, 10, 15, 15]
    kept = cut_back(path, lambda row: True)
    assert path.read_text().endswith("}\n")
    assert kept == read_rows(path)
    tracker = JsonlTracker(path)
    tracker.log(record(20))
    tracker.close()
    assert [row["step"] for row in read_rows(path)] == [5, 10, 15, 15, 20]


def test_rows_of_steps_to_come_are_cut(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    kept = cut_back(path, lambda row: row["step"] <= 10)
    assert [row["step"] for row in kept] == [5, 10]
    assert path.read_bytes() == b"".join(lines[:2]), "what is kept is not rewritten in another form"


def test_a_run_without_rows_has_none(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "none.jsonl") == []
    assert cut_back(tmp_path / "none.jsonl", lambda row: True) == []
    assert (tmp_path / "none.jsonl").read_bytes() == b""


def test_every_line_is_an_object_of_plain_values(path: Path) -> None:
    for line in path.read_text().splitlines():
        row = json.loads(line)
        assert set(row) == {"kind", "step", "epoch", "train/loss"}
        assert all(isinstance(value, str | int | float) for value in row.values())
