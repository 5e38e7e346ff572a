"""The whole report of made-up runs: exact figures, clear treatment of every odd run, and nothing from elsewhere."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest

from src.config import ConfigError
from src.config.report import load_report
from src.reporting.content import Content, gather, with_figures
from src.reporting.curves import mean_curve
from src.reporting.make import make_report
from src.reporting.markdown import as_markdown
from src.reporting.page import as_page
from src.reporting.pictures import inline_svg, svg
from src.reporting.results import as_csv, as_json
from src.reporting.sheet import zoomed
from src.reporting.tables import epochs_table, groups_table
from tests.unit.reporting.made_runs import make_run, run_of

SEEDS = [[40.0, 60.5, 71.25], [45.0, 61.0, 70.75], [42.0, 63.0, 72.0]]


def read(*words: str) -> Content:
    return gather(*load_report(words))


def report(target: Path, *words: str) -> dict[str, Any]:
    runs, config = load_report([*words, f"target={target}"])
    return make_report(runs, config)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    for seed, accuracies in enumerate(SEEDS):
        make_run(tmp_path / "runs" / f"s{seed}", accuracies, seed=seed, speed=1 + seed / 10)
    return tmp_path / "runs"


def test_the_tables_figures_are_those_of_a_plain_recomputation(three: Path) -> None:
    content = read(str(three))
    (group,) = json.loads(as_json(content))["groups"]
    rows = [[json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] for path in sorted(three.glob("s*"))]
    last = [[row for row in run if row["kind"] == "epoch"][-1] for run in rows]
    seconds = [max(row.get("time/elapsed_seconds", 0) for row in run) for run in rows]
    plain = {
        "last_acc1": [row["val/acc1"] for row in last],
        "best_acc1": [max(row["val/acc1"] for row in run if row["kind"] == "epoch") for run in rows],
        "acc5": [row["val/acc5"] for row in last],
        "loss": [row["val/loss"] for row in last],
        "training_seconds": seconds,
        "images_per_second": [64 * row["step"] / time for row, time in zip(last, seconds, strict=True)],
    }
    for key, values in plain.items():
        assert group[key]["mean"] == pytest.approx(fmean(values), rel=1e-14), key
        assert group[key]["sd"] == pytest.approx(stdev(values), rel=1e-12), key
        assert group[key]["n"] == 3
    accuracies = plain["last_acc1"]
    told = f"{fmean(accuracies):.2f} ± {stdev(accuracies):.2f}"
    assert told in as_markdown(content)
    assert told in as_page(content)
    assert [float(row["last_acc1"]) for row in csv.DictReader(as_csv(content).splitlines())] == accuracies


def test_the_epoch_table_says_what_was_recorded(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a", [40.0, None, 71.25])
    assert epochs_table(run).rows[1] == ("1", "20", "0:00:06", "0.5000", "51.00", "-", "-", "-")
    assert epochs_table(run).rows[2] == ("2", "30", "0:00:06", "0.3333", "52.00", "0.6438", "71.25", "99.36")


def test_a_curve_is_the_mean_at_the_steps_that_all_seeds_have(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / "a", [40.0, 50.0, None, 60.0]), run_of(tmp_path / "b", [44.0, None, 70.0, 66.0], seed=1)]
    curve = mean_curve(runs, lambda run, epoch: epoch.step / run.steps_per_epoch, lambda epoch: epoch.val_acc1)
    assert curve.x.tolist() == [1.0, 4.0]
    assert curve.mean.tolist() == [42.0, 63.0]
    assert curve.sd.tolist() == pytest.approx([np.std([40, 44], ddof=1), np.std([60, 66], ddof=1)])


def test_hours_are_the_mean_of_the_seeds_too(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / "a", [40.0, 50.0]), run_of(tmp_path / "b", [44.0, 60.0], seed=1, speed=2.0)]
    assert mean_curve(runs, lambda _, epoch: epoch.elapsed, lambda epoch: epoch.val_acc1).x.tolist() == [4.5, 9.0]


def test_early_values_do_not_flatten_the_rest() -> None:
    rising = np.array([1.0, 2.0, 60.0, 68.0, 71.0, 73.0, 74.0, 75.0, 75.5, 76.0])
    low, high, cut = zoomed([rising], early="below") or (0, 0, False)
    assert cut
    assert 50 < low < 60 < 76 < high < 80
    falling = np.array([7.0, 3.0, 1.2, 1.1, 1.05, 1.02, 1.0, 0.99, 0.98, 0.97])
    low, high, cut = zoomed([falling], early="above") or (0, 0, False)
    assert cut
    assert 0.9 < low < 0.97 < 1.2 < high < 1.3
    assert zoomed([np.array([86.0, 88.0, 90.0, 92.0])], early="below") == pytest.approx((85.64, 92.36, False))
    assert zoomed([], early="below") is None


def test_unfinished_runs_are_shown_and_counted_nowhere(three: Path, tmp_path: Path) -> None:
    make_run(three / "s9", [99.0], seed=9, epochs=3, status="running")
    content = read(str(three))
    page = as_page(content)
    assert [len(group.finished) for group in content.groups] == [3]
    assert "s9 (running or killed, 1 of 3 epochs)" in page
    assert "3 (+1 unfinished)" in page
    assert "71.33 ± 0.63" in page


def test_a_group_without_a_finished_run_has_no_result(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a", [50.0, 60.0], epochs=5, status="preempted")
    content = with_figures(read(str(tmp_path / "runs")))
    assert groups_table(content.groups, "last").rows[0][1:3] == ("0 (+1 unfinished)", "-")
    assert [figure.name for figure in content.tasks[0].figures] == [
        "accuracy_epochs", "accuracy_hours", "loss", "learning_rate", "throughput",
    ]  # fmt: skip


def test_a_run_before_its_first_epoch_is_listed_and_not_drawn(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "runs" / "a", [50.0], epochs=5, status="running")
    file = folder / "metrics.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:1]))
    (folder / ".metrics.jsonl.seal").unlink()
    make_run(tmp_path / "runs" / "b", [50.0], epochs=1, seed=1)
    content = with_figures(read(str(tmp_path / "runs")))
    assert [[len(run.epochs) for run in group.runs] for group in content.groups] == [[0], [1]]


def test_empty_damaged_and_altered_runs_are_left_out_and_told(three: Path, tmp_path: Path) -> None:
    (three / "empty").mkdir()
    (three / "empty" / "status.json").write_text("{}")
    altered = make_run(three / "altered", SEEDS[0], seed=8)
    file = altered / "metrics.jsonl"
    file.write_bytes(file.read_bytes().replace(b"71.25", b"91.25"))
    content = read(str(three))
    assert (len(content.groups[0].runs), len(content.left_out)) == (3, 2)
    page = as_page(content)
    assert "empty: config.yaml cannot be read" in page
    assert "altered: metrics.jsonl is not what the run wrote" in page
    assert "91.25" not in page


def test_nothing_but_unusable_runs_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "metrics.jsonl").touch()
    with pytest.raises(ConfigError, match=r"config\.yaml cannot be read"):
        report(tmp_path / "out", str(tmp_path / "a"))
    assert not (tmp_path / "out").exists()


def test_other_tasks_share_no_figure_and_no_test(three: Path) -> None:
    for seed in range(2):
        make_run(three / f"c{seed}", SEEDS[seed], seed=seed, overrides=["data=cifar10"])
    content = read(str(three))
    page = as_page(content)
    assert "THESE ARE 2 DIFFERENT TASKS" in page
    assert "Figures of cifar10, 10 classes" in page
    assert [one.verdict for one in content.comparisons] == ["not comparable"]
    assert [[len(group.runs) for group in task.groups] for task in content.tasks] == [[2], [3]]
    assert [task.prefix for task in content.tasks] == ["task1_", "task2_"]


def test_against_names_the_baseline_and_must_be_one_group(three: Path, tmp_path: Path) -> None:
    for seed in range(2):
        make_run(tmp_path / "low" / f"l{seed}", [30.0, 40.0 + seed, 50.0 + seed], seed=seed, overrides=["optim.peak_lr=0.01"])
    content = read(str(three), f"against={tmp_path / 'low'}")
    assert [(one.group, one.baseline) for one in content.comparisons] == [("peak_lr=0.1", "peak_lr=0.01")]
    with pytest.raises(ConfigError, match="holds runs of 2 groups"):
        read(str(three), f"against={tmp_path / 'low'},{three}")


def test_a_target_that_cannot_be_written_is_a_mistake(three: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="target"):
        report(tmp_path / "file" / "out", str(three))


class Seen(HTMLParser):
    """What a browser would find in a page: tags, and everything that could ask for something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.asked: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset") or name.startswith("on"):
                self.asked.append(value or "")
            if name == "id":
                self.ids.append(value or "")


HOSTILE = ["<script>alert(1)</script>", "_a|b`*[x](http://evil.example)", "'\"><img src=x onerror=alert(1)>", "$x$ & -->", "=1+1"]


def test_what_comes_from_folders_is_text_everywhere(tmp_path: Path) -> None:
    for seed, name in enumerate(HOSTILE):
        folder = tmp_path / "runs" / name.replace("/", "\u2215")
        make_run(folder, SEEDS[0], seed=seed, overrides=[f"optim.peak_lr=0.{seed + 1}"])
        (folder / "meta.json").write_text(json.dumps({"device": name, "git_commit": name, "world_size": name, "command": [name]}))
    report(tmp_path / "out", str(tmp_path / "runs"))
    seen = Seen()
    seen.feed((tmp_path / "out" / "report.html").read_text())
    assert not {"script", "img", "iframe", "object", "b"} & set(seen.tags)
    assert all(asked.startswith(("#", "data:,")) for asked in seen.asked)
    assert len(set(seen.ids)) == len(seen.ids)
    markdown = (tmp_path / "out" / "results.md").read_text()
    assert "<" not in markdown
    assert not re.search(r"(?<!\\)\]\(http", markdown)
    with open(tmp_path / "out" / "results.csv") as file:
        assert not [row for row in csv.DictReader(file) for cell in row.values() if cell.startswith("=")]


def test_a_figure_is_the_same_bytes_each_time_and_takes_the_pages_colours(three: Path) -> None:
    one, other = (with_figures(read(str(three))).tasks[0].figures[:2] for _ in range(2))
    assert [svg(figure) for figure in one] == [svg(figure) for figure in other]
    text = inline_svg(one[0], number=7)
    assert "currentColor" in text
    assert "var(--c0)" in text
    assert not re.search(r'id="(?!f7-)|href="#(?!f7-)|url\(#(?!f7-)', text)
    assert 'aria-label="Validation accuracy against epochs.' in text


def test_more_groups_than_colours_with_long_names_can_be_drawn(tmp_path: Path) -> None:
    for number in range(1, 9):
        more = [f"optim.peak_lr=0.{number}", f"label_smoothing=0.0{number}", f"optim.weight_decay=0.000{number}"]
        make_run(tmp_path / "runs" / f"{number}", SEEDS[0], overrides=[*more, f"optim.momentum=0.{number}"])
    content = with_figures(read(str(tmp_path / "runs")))
    assert len({group.name for group in content.groups}) == 8
    assert len(inline_svg(content.tasks[0].figures[0], number=1)) > 1000
