"""Runs are named by folders, by folders of folders, and by patterns that no shell expanded."""

from pathlib import Path

import pytest

from src.config import ConfigError
from src.config.report import load_report
from src.reporting.find import find_runs


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for number in (0, 1, 2, 10):
        (tmp_path / "runs" / f"demo-s{number}").mkdir(parents=True)
        (tmp_path / "runs" / f"demo-s{number}" / "metrics.jsonl").touch()
    (tmp_path / "runs" / "lr_finder").mkdir()
    (tmp_path / "runs" / "demo.schedule.png").touch()
    return tmp_path / "runs"


def names(words: list[str]) -> list[str]:
    return [path.name for path in find_runs(words, key="runs").runs]


def test_a_pattern_a_folder_of_runs_and_the_runs_themselves_are_the_same(runs: Path) -> None:
    wanted = ["demo-s0", "demo-s1", "demo-s2", "demo-s10"]
    assert names([str(runs / "demo-s*")]) == wanted
    assert names([str(runs)]) == wanted
    assert names([str(runs / name) for name in wanted]) == wanted


def test_a_run_that_is_named_twice_counts_once(runs: Path) -> None:
    (runs / "link").symlink_to(runs / "demo-s1")
    assert names([str(runs / "demo-s1"), str(runs / "link"), str(runs / "demo-s[12]")]) == ["demo-s1", "demo-s2"]


def test_what_a_shell_expanded_besides_runs_is_left_out_and_told(runs: Path) -> None:
    found = find_runs([str(path) for path in sorted(runs.iterdir())], key="runs")
    assert len(found.runs) == 4
    assert {path.name: why for path, why in found.others} == {
        "lr_finder": "no run's folder",
        "demo.schedule.png": "a file, no run's folder",
    }


def test_a_run_whose_name_looks_like_a_pattern_is_a_run(runs: Path) -> None:
    (runs / "lr=[1]*").mkdir()
    (runs / "lr=[1]*" / "metrics.jsonl").touch()
    assert names([str(runs / "lr=[1]*")]) == ["lr=[1]*"]


def test_every_path_that_does_not_exist_is_named_at_once_with_a_near_one(runs: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        find_runs([str(runs / "demo-s3x"), str(runs / "other*"), str(runs / "demo-s1")], key="runs")
    assert len(caught.value.problems) == 2
    assert "Did you mean demo-s" in str(caught.value)


def test_a_folder_without_runs_is_a_mistake(runs: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        find_runs([str(runs / "lr_finder")], key="runs")


def test_runs_are_told_from_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1").mkdir()
    words, config = load_report(["lr=0.1", "runs/a", "against=runs/b,c=d", "target=x=y", "counted=best"])
    assert words == ["lr=0.1", "runs/a"]
    assert (config.against, config.target, config.counted) == ("runs/b,c=d", "x=y", "best")


def test_every_mistake_of_the_command_line_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_report(["counted=worst", "confidence=2", "alow=[images]", "allow=[everything]"])
    text = str(caught.value)
    assert len(caught.value.problems) == 5
    assert "Did you mean allow?" in text
    for key in ("runs:", "counted = 'worst'", "confidence = 2", "allow"):
        assert key in text
