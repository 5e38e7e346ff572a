"""What is read from a run's folder, in whatever state it was left."""

import json
from pathlib import Path

import pytest

from src.reporting.records import UnusableRunError, read_run
from tests.unit.reporting.made_runs import STEPS, make_run, run_of


def test_a_finished_run_is_read_whole(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a", [50.0, 61.5, 72.25], seed=4)
    assert (run.name, run.seed, run.status, run.finished, run.notes) == ("a", 4, "finished", True, ())
    assert [epoch.val_acc1 for epoch in run.epochs] == [50.0, 61.5, 72.25]
    assert [epoch.elapsed for epoch in run.epochs] == [6.0, 12.0, 18.0]
    assert (run.steps_per_epoch, run.batch_size, len(run.windows)) == (STEPS, 64, 6)
    assert run.windows[0].images_per_second == pytest.approx(64 * STEPS / 6)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("running", "running or killed, 2 of 5 epochs"),
        ("preempted", "stopped, 2 of 5 epochs"),
        ("failed", "failed, 2 of 5 epochs"),
        ("finished", "lines are missing, 2 of 5 epochs"),
    ],
)
def test_an_unfinished_run_says_how_far_it_came(tmp_path: Path, status: str, told: str) -> None:
    run = run_of(tmp_path / "a", [50.0, 60.0], epochs=5, status=status)
    assert (run.status, run.finished) == (told, False)


def test_a_last_epoch_without_an_evaluation_is_not_the_end(tmp_path: Path) -> None:
    assert not run_of(tmp_path / "a", [50.0, None]).finished
    run = run_of(tmp_path / "b", [None, 50.0])
    assert run.finished
    assert [epoch.epoch for epoch in run.evaluations] == [1]


def test_a_half_line_at_the_end_is_a_killed_runs_and_no_damage(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", [50.0, 60.0], epochs=3, status="running")
    with open(folder / "metrics.jsonl", "ab") as file:
        file.write(b'{"kind": "train", "st')
    run = read_run(folder)
    assert (len(run.epochs), run.notes) == (2, ())


def test_an_altered_figure_makes_a_run_unusable(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", [50.0, 60.0])
    file = folder / "metrics.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"val/acc1": 60.0', b'"val/acc1": 90.0'))
    with pytest.raises(UnusableRunError, match="not what the run wrote"):
        read_run(folder)


def test_a_lost_line_makes_a_run_unusable(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", [50.0, 60.0])
    file = folder / "metrics.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(UnusableRunError, match="changed or lost"):
        read_run(folder)


def test_without_a_seal_lines_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", [50.0, 60.0])
    (folder / ".metrics.jsonl.seal").unlink()
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_bytes(b"".join([lines[0], b"\0\xff garbage\n", *lines[1:]]))
    notes = read_run(folder).notes
    assert len(notes) == 2
    assert "no seal" in notes[0]
    assert "1 line" in notes[1]


@pytest.mark.parametrize("content", [None, b"", b"not a row\n"])
def test_a_run_without_rows_has_nothing_to_report(tmp_path: Path, content: bytes | None) -> None:
    folder = make_run(tmp_path / "a", [50.0])
    (folder / ".metrics.jsonl.seal").unlink()
    (folder / "metrics.jsonl").unlink()
    if content is not None:
        (folder / "metrics.jsonl").write_bytes(content)
    with pytest.raises(UnusableRunError, match="nothing was recorded"):
        read_run(folder)


def test_without_its_own_configuration_nobody_can_say_what_a_run_is(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", [50.0])
    file = folder / "config.yaml"
    file.write_text(file.read_text().replace("peak_lr: 0.1", "peak_lr: 0.2"))
    with pytest.raises(UnusableRunError, match="not what the run wrote"):
        read_run(folder)
    file.unlink()
    with pytest.raises(UnusableRunError, match="cannot be read"):
        read_run(folder)


def test_the_protocol_comes_from_the_status_else_from_the_log_else_is_unknown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", [50.0], engine="ffcv", crop="centre box", interpolation="area", images=500)
    told = read_run(folder).protocol
    (folder / "status.json").write_text(json.dumps({"status": "finished"}))
    assert read_run(folder).protocol == told
    assert (told["engine"], told["crop"], told["images"], told["classes"]) == ("ffcv", "centre box", 500, 10)
    (folder / "train.log").unlink()
    unknown = read_run(folder).protocol
    assert (unknown["engine"], unknown["images"], unknown["resize_size"]) == (None, None, 28)


def test_engines_that_make_the_same_pixels_are_one(tmp_path: Path) -> None:
    protocols = [run_of(tmp_path / engine, [50.0], engine=engine).protocol for engine in ("torchvision", "nvimgcodec")]
    assert protocols[0] == protocols[1]
    assert run_of(tmp_path / "gpu", [50.0], engine="nvimgcodec-gpu").protocol != protocols[0]


@pytest.mark.parametrize("name", ["status.json", "meta.json"])
@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"[" * 100_000])
def test_a_damaged_side_file_is_as_good_as_none(tmp_path: Path, name: str, content: bytes) -> None:
    folder = make_run(tmp_path / "a", [50.0])
    (folder / name).write_bytes(content)
    assert read_run(folder).finished


def test_figures_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", [50.0, 60.0])
    (folder / ".metrics.jsonl.seal").unlink()
    file = folder / "metrics.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"val/acc1": 60.0', b'"val/acc1": NaN'))
    run = read_run(folder)
    assert [epoch.val_acc1 for epoch in run.evaluations] == [50.0]
    assert not run.finished
