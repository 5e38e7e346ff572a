"""metrics.jsonl keeps every row through a kill, and gives up those that a resumed run will write again."""

import json
from pathlib import Path
from typing import Any

import pytest

from src.batch import Record
from src.config import ConfigError
from src.tracking import appended, jsonl
from src.tracking.jsonl import JsonlTracker, cut_back, elapsed_seconds, read_rows
from src.tracking.seal import Seal, read_seals, seal_path, write_seals


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


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


@pytest.fixture
def sealed(path: Path) -> Path:
    tracker = JsonlTracker(path)
    tracker.sync()
    tracker.log(record(20))  # behind the seal: the process died before it was made to last
    tracker.close()
    return path


def test_what_was_written_is_taken_without_a_word(sealed: Path, said: list[str]) -> None:
    before = sealed.read_bytes()
    assert read_seals(sealed) == [Seal.of(b"".join(lines_of(sealed)[:4]))]
    for keep in (20, 20, 10, 0):  # cut again and again, never sealed anew by a tracker
        kept = cut_back(sealed, lambda row, keep=keep: row["step"] <= keep)
        assert all(row["step"] <= keep for row in kept)
        assert before.startswith(sealed.read_bytes())
    assert said == []


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda lines: [lines[0], lines[1].replace(b"1.0", b"7.0"), *lines[2:]], "its first 243 bytes were altered"),
        (lambda lines: [lines[0], *lines[2:]], "its first 243 bytes were altered"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "line 2 goes back from step 10 to 5"),
        (lambda lines: [lines[0], b'{"kind": "train", "st\n', *lines[2:]], "line 2 is no row"),
        (lambda lines: [lines[0], b"\xff\n", *lines[2:]], "line 2 is no row"),
        (lambda lines: lines[:2], "of 243 bytes"),
        (lambda lines: [], "of 243 bytes 0 are left"),
        (lambda lines: [*lines, b"[3]\n"], "line 6 is no row"),
    ],
)
def test_a_lost_line_or_a_changed_digit_is_told(sealed: Path, said: list[str], damage: Any, told: str) -> None:
    sealed.write_bytes(b"".join(damage(lines_of(sealed))))
    rows = cut_back(sealed, lambda row: True)
    assert len(said) == 1
    assert said[0].startswith(f"WARNING {sealed} IS NOT WHAT WAS WRITTEN: ")
    assert told in said[0]
    assert read_rows(sealed) == rows
    tracker = JsonlTracker(sealed)
    tracker.sync()
    tracker.close()
    said.clear()
    cut_back(sealed, lambda row: True)
    assert said == [] or "goes back" in told, "it was told once"


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"[3]", b'[{"length": -1, "sha256": "x"}]', b"[" * 100_000])
def test_a_lost_seal_is_told(sealed: Path, said: list[str], content: bytes | None) -> None:
    seal_path(sealed).unlink()
    if content is not None:
        seal_path(sealed).write_bytes(content)
    cut_back(sealed, lambda row: True)
    assert ".metrics.jsonl.seal is missing or damaged, so that a changed figure would not be seen" in said[0]


NO_ROWS = (
    *("[]", "7", "{}", '{"kind": "x", "step": 1, "epoch": 0}', '{"kind": "train", "step": "1", "epoch": 0}'),
    *('{"kind": "train", "step": -1, "epoch": 0}', '{"kind": "train", "step": 1, "epoch": 0, "time/elapsed_seconds": "x"}'),
    *('{"kind": "train", "step": 1.5, "epoch": 0}', f'{{"kind": "train", "step": 1, "epoch": 0, "a": 1{"0" * 400}}}'),
)


@pytest.mark.parametrize("row", NO_ROWS, ids=[row[:60] for row in NO_ROWS])
def test_what_is_no_row_of_ours_is_left_out(path: Path, row: str) -> None:
    before = read_rows(path)
    with open(path, "a") as file:
        file.write(f"{row}\n")
    assert read_rows(path) == before == cut_back(path, lambda row: row["step"] >= 0)


def test_a_process_that_dies_in_the_cut_leaves_a_seal_that_fits(
    sealed: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("write_seals", "write_atomically"):  # before the seal, and between the seal and the content
        with monkeypatch.context() as patch:
            patch.setattr(jsonl, name, die)
            with pytest.raises(KeyboardInterrupt):
                cut_back(sealed, lambda row: row["step"] <= 10)
    assert len(cut_back(sealed, lambda row: row["step"] <= 10)) == 2
    assert len(cut_back(sealed, lambda row: True)) == 2
    assert said == []


def test_one_that_cannot_be_read_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(ConfigError, match=r"metrics\.jsonl: cannot be read or written \(Is a directory\)"):
        cut_back(tmp_path / "metrics.jsonl", lambda row: True)


def test_the_time_goes_on_from_the_latest_row_that_tells_one() -> None:
    key = "time/elapsed_seconds"
    assert elapsed_seconds([{key: 3.0}, {}, {key: 8}, {key: float("nan")}, {key: float("inf")}]) == 8.0
    assert elapsed_seconds([]) == 0.0


def test_a_seal_that_cannot_be_written_is_a_warning(sealed: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(appended, "write_seals", full)
    tracker = JsonlTracker(sealed)
    tracker.sync()
    assert "cannot be made to last: [Errno 28]" in said[0]
    monkeypatch.setattr(appended, "write_seals", write_seals)
    tracker.sync()
    tracker.close()
    assert read_seals(sealed) == [Seal.of(sealed.read_bytes())]
