"""Runs that differ in nothing but the seed are one group, and groups are named by what tells them apart."""

from pathlib import Path

from src.reporting.groups import group_runs
from tests.unit.reporting.made_runs import run_of


def test_seeds_are_one_group_whatever_their_folders_are_called(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name, [50.0 + seed], seed=seed) for seed, name in enumerate(("x", "best one", "z"))]
    (group,), copies = group_runs([runs[2], runs[0], runs[1]])
    assert [run.seed for run in group.runs] == [0, 1, 2]
    assert (group.name, group.notes, copies) == ("fashion_mnist, small_resnet, sgd", (), [])


def test_what_cannot_change_a_result_makes_no_group(tmp_path: Path) -> None:
    other = ["data.workers=3", "track.log_every_steps=7", "data.engine=torchvision", "save_every_steps=5", "runs_dir=elsewhere"]
    runs = [run_of(tmp_path / "a", [50.0]), run_of(tmp_path / "b", [51.0], seed=1, overrides=other)]
    assert len(group_runs(runs)[0]) == 1


def test_what_can_change_a_result_does_and_names_it(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / f"{number}", [50.0], overrides=[f"optim.peak_lr={rate}"]) for number, rate in enumerate((0.1, 0.05))]
    assert [group.name for group in group_runs(runs)[0]] == ["peak_lr=0.1", "peak_lr=0.05"]


def test_a_choice_is_named_and_what_it_implies_is_not(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / "a", [50.0]), run_of(tmp_path / "b", [50.0], overrides=["optim=adam", "optim.peak_lr=0.001"])]
    names = [group.name for group in group_runs(runs)[0]]
    assert names[0].startswith("optim=sgd ")
    assert names[1].startswith("optim=adam ")
    assert "peak_lr=0.001" in names[1]
    assert "betas" not in names[1]
    assert "momentum" not in names[0]


def test_names_differ_where_many_keys_do(tmp_path: Path) -> None:
    settings = [[], ["epochs=2"], ["label_smoothing=0.1"], ["batch_size=32"], ["optim.momentum=0.8"], ["max_grad_norm=1"]]
    settings += [["optim.weight_decay=0.001"], ["precision=bf16"], ["model.width=32"]]
    runs = [run_of(tmp_path / f"{number}", [50.0, 50.0], epochs=2, overrides=more) for number, more in enumerate(settings[:1])]
    runs += [run_of(tmp_path / f"m{number}", [50.0], overrides=more) for number, more in enumerate(settings[2:])]
    names = [group.name for group in group_runs(runs)[0]]
    assert len(set(names)) == len(runs) == 8


def test_another_protocol_is_another_group_though_the_configuration_is_one(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / "a", [50.0]), run_of(tmp_path / "b", [51.0], seed=1, images=5_000)]
    assert [group.name for group in group_runs(runs)[0]] == ["images=10000", "images=5000"]


def test_a_copy_counts_once_and_is_told(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name, [50.0, 60.0], seed=3) for name in ("a", "b")]
    (group,), ((copy, why),) = group_runs(runs)
    assert ([run.name for run in group.runs], copy.name) == (["a"], "b")
    assert "copy of a" in why


def test_one_seed_with_other_figures_is_kept_and_told(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / "a", [50.0], seed=3), run_of(tmp_path / "b", [51.0], seed=3)]
    (group,), copies = group_runs(runs)
    assert (len(group.runs), copies) == (2, [])
    assert "seed 3" in group.notes[0]
