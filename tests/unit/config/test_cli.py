"""The words beside the overrides: --help, --cfg, --run-dir, --multirun, --config-dir; and how a sweep runs."""

import os
from pathlib import Path

import pytest
import yaml

from src import train
from src.config import load
from src.config.cli import parse
from src.config.identity import run_name
from src.config.overrides import groups


def parsed(*arguments: str) -> tuple[list[str], bool, Path | None]:
    line = parse(arguments, door="src.train", about="x")
    return line.overrides, line.multirun, line.config_dir


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        parse(arguments, door="src.train", about="x")
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_options_stand_anywhere_among_overrides(tmp_path: Path) -> None:
    assert parsed("seed=1", "-m", "optim=adam,sgd", "--config-dir", str(tmp_path), "epochs=2") == (
        ["seed=1", "optim=adam,sgd", "epochs=2"],
        True,
        tmp_path,
    )
    assert parsed() == ([], False, None)


def test_keys_with_dashes_are_told_without(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "--epochs=3", "seed=1", "--fast")
    assert message.startswith("2 problems in the command line:\n")
    assert "--epochs=3: no such option. Keys have no dashes: type epochs=3." in message
    assert "--fast: no such option. See python -m src.train --help." in message


def test_a_missing_config_dir_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    assert f"--config-dir = '{missing}': no such folder." in refused(capsys, "--config-dir", str(missing))


def test_cfg_prints_what_would_be_validated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--cfg", "job", "optim=sf_sgd", "data.path=/x"], door="src.train", about="x")
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("seed: 0\nepochs: 90\n")
    tree = yaml.safe_load(out)
    assert (tree["average"]["name"], tree["data"]["train_path"], tree["epochs"]) == ("schedule_free", "/x/train", 90)


def test_cfg_of_what_cannot_be_composed_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert "optim = 'nadam': no such choice." in refused(capsys, "--cfg", "job", "optim=nadam")


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        parse(arguments, door="src.train", about="x", trains=True)
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_run_dir_is_the_absolute_path_of_the_folder_that_training_takes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = run_name(load(["data=synthetic", "seed=3"]))
    assert answer(capsys, "--run-dir", "data=synthetic", "seed=3") == f"{tmp_path}/runs/{name}\n"
    assert answer(capsys, "data=synthetic", "runs_dir=/elsewhere", "run_name=mine", "--run-dir") == "/elsewhere/mine\n"
    assert not (tmp_path / "runs").exists()


def test_run_dir_of_a_sweep_is_a_line_for_every_run(capsys: pytest.CaptureFixture[str]) -> None:
    told = answer(capsys, "--run-dir", "-m", "data=synthetic", "runs_dir=/r", "seed=0,1").splitlines()
    assert told == [f"/r/{run_name(load(['data=synthetic', f'seed={seed}']))}" for seed in (0, 1)]


def test_run_dir_of_wrong_input_prints_the_usual_message_and_no_path(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--run-dir", "epochs=0", "sed=1"], door="src.train", about="x", trains=True)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("2 problems in the configuration:\n")


def test_only_the_door_that_trains_has_run_dir(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--run-dir: no such option." in refused(capsys, "--run-dir")


def test_help_lists_every_group_with_its_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"], door="src.train", about="what it is for")
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert "what it is for" in lines
    for group, choices in groups().items():
        (line,) = [line for line in lines if line.startswith(f"  {group} ")]
        assert " | ".join(choices) in line


def test_multirun_under_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(os.environ, "RANK", "0")
    with pytest.raises(SystemExit) as caught:
        train.main(["--multirun", "seed=0,1", "data=synthetic"])
    assert caught.value.code == 2
    assert "--multirun: does not work under torchrun: use plain python" in capsys.readouterr().err


def test_several_values_without_multirun_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        train.main(["seed=0,1"])
    assert caught.value.code == 2
    assert "seed = '0,1': several values make a sweep: add --multirun." in capsys.readouterr().err


def test_a_sweep_with_a_wrong_point_starts_no_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit) as caught:
        train.main(["-m", "seed=0,1", "optim=sgd,nadam", "data=synthetic", f"runs_dir={tmp_path / 'runs'}"])
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert "optim = 'nadam': no such choice." in message
    assert "run 1" not in message
    assert not (tmp_path / "runs").exists()
