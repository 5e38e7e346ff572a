"""Nothing that is read can run code: checkpoints, weights, caches, configurations; and nothing in src/ could make it so."""

import ast
import hashlib
import json
import os
import pickle
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.version import Version

from src.config import Config, ConfigError
from src.config.problems import parts_of
from src.models.weights import read_state_dict
from src.train import main
from src.training.checkpoint import Checkpoints
from src.training.checkpoint_file import CheckpointError, load_file, make_entry
from tests.conftest import ROOT, RunDoor
from tests.end_to_end.kill_harness import SYNTHETIC

SRC = ROOT / "src"
FILES = sorted(SRC.rglob("*.py"))


class Malicious:
    """Makes a file named PWNED when it is unpickled."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def __reduce__(self) -> tuple[Any, tuple[str, int]]:
        return os.mkdir, (str(self.where), 0o700)


def write_zip(path: Path, bait: Path) -> None:
    """As torch.save writes it."""
    torch.save({"schema": 1, "step": 3, "model": {"weight": torch.zeros(2)}, "extra": Malicious(bait)}, path)


def write_bare(path: Path, bait: Path) -> None:
    """A bare pickle."""
    path.write_bytes(pickle.dumps({"schema": 1, "step": 3, "state_dict": Malicious(bait)}))


def write_legacy(path: Path, bait: Path) -> None:
    """As torch.save wrote before 1.6."""
    torch.save({"schema": 1, "step": 3, "model": Malicious(bait)}, path, _use_new_zipfile_serialization=False)


@pytest.fixture(params=[write_zip, write_bare, write_legacy], ids=["zip", "bare", "legacy"])
def malicious(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    path, bait = tmp_path / "malicious.ckpt", tmp_path / "PWNED"
    request.param(path, bait)
    yield path
    assert not bait.exists(), "its code was run"


def test_the_bait_works(tmp_path: Path) -> None:
    write_bare(tmp_path / "file", tmp_path / "PWNED")
    pickle.loads((tmp_path / "file").read_bytes())
    assert (tmp_path / "PWNED").exists()


def test_a_malicious_checkpoint_is_refused(malicious: Path) -> None:
    with pytest.raises(CheckpointError, match=re.escape(str(malicious))):
        load_file(malicious)


def test_malicious_weights_are_refused(malicious: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.weights = .*malicious.* tensors only"):
        read_state_dict(malicious)


@pytest.mark.parametrize("forged", [False, True], ids=["unknown to the register", "with a forged register"])
def test_a_malicious_newest_checkpoint_is_not_resumed(malicious: Path, forged: bool) -> None:
    folder = malicious.parent / "checkpoints"
    checkpoints = Checkpoints(folder)
    checkpoints.prepare()
    entry = make_entry(hashlib.sha256(malicious.read_bytes()).hexdigest(), 3)
    malicious.rename(folder / "last.ckpt")
    if forged:
        (folder / "checkpoints.json").write_text(json.dumps({"last.ckpt": entry}))
        assert checkpoints.find_newest() == folder / "last.ckpt"
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_file(folder / "last.ckpt")
    else:
        with pytest.raises(CheckpointError):
            checkpoints.find_newest()


@pytest.mark.slow
def test_every_door_refuses_one(run_door: RunDoor, tmp_path: Path) -> None:
    path, bait = tmp_path / "malicious.ckpt", tmp_path / "PWNED"
    write_zip(path, bait)
    model = ("model=small_resnet", "model.width=4", "batch_size=32", f"runs_dir={tmp_path}")
    resumed = run_door(*SYNTHETIC, *model, f"resume={path}")
    weighed = run_door(*SYNTHETIC, "model=resnet18", f"model.weights={path}", f"runs_dir={tmp_path}")
    evaluated = run_door(f"checkpoint={path}", module="src.evaluate")
    for done in (resumed, weighed, evaluated):
        assert done.returncode in (1, 2) and str(path) in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not bait.exists()


def calls(file: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(one.value) for one in call.keywords if one.arg == name), None)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SRC)))
def test_no_file_of_ours_could_run_what_it_reads(file: Path) -> None:
    for name, call in calls(file):
        last = name.rpartition(".")[2]
        where = f"{file}:{call.lineno}: {name}"
        if name == "torch.load":
            assert keyword(call, "weights_only") == "True", where
        elif last == "load" and name.partition(".")[0] in ("np", "numpy"):
            assert keyword(call, "allow_pickle") == "False", where
        elif re.fullmatch(r"yaml\.\w+", name):
            safe = last == "load" and (keyword(call, "Loader") or "").endswith("yaml.SafeLoader)")
            assert last.startswith("safe_") or last == "dump" or safe, where
        elif name == "Image.open":
            assert keyword(call, "formats"), where
        assert name not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "hydra.utils.instantiate"), where
        assert last not in ("extractall", "extract", "instantiate", "unpack_archive", "load_state_dict_from_url"), where
        assert keyword(call, "shell") in (None, "False"), where
        assert keyword(call, "trust_remote_code") in (None, "False"), where


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SRC)))
def test_no_file_of_ours_knows_pickle(file: Path) -> None:
    """torch.distributed's *_object calls use it between the ranks of one job, which run the same code as the same user."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"} & {name.partition(".")[0] for name in names}, (
            file
        )


PICKLING = (
    "all_gather_object",
    "gather_object",
    "broadcast_object_list",
    "scatter_object_list",
    "send_object_list",
    "recv_object_list",
)


def test_objects_go_between_ranks_in_one_file_only() -> None:
    found = {file.name for file in FILES for name, _ in calls(file) if name.rpartition(".")[2] in PICKLING}
    assert found == {"distributed.py"}
    assert all(hasattr(torch.distributed, name) for name in PICKLING)


@pytest.mark.parametrize(
    "typed",
    [
        "model._target_=os.system",
        "+model.kwargs={_target_: os.system, command: touch PWNED}",
        "optim={_target_: builtins.exec}",
        "data.path=${oc.env:HOME}",
        "data.path=${oc.create:{a: 1}}",
        "data.path='${oc.${oc.decode:env}:HOME}'",
        "hydra.launcher._target_=os.system",
        "hydra/launcher=basic",
        "hydra.searchpath=[pkg://os]",
    ],
)
def test_a_configuration_runs_no_code(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as done:
        main(["data=synthetic", typed, "epochs=0"])
    err = capsys.readouterr().err
    assert done.value.code == 2 and "Traceback" not in err and str(Path.home()) not in err
    assert not list(tmp_path.iterdir())


def test_no_key_of_ours_is_a_target() -> None:
    assert not [path for path, _ in parts_of(Config) if "_target_" in path]
    assert not [file for file in (ROOT / "conf").rglob("*.yaml") if re.search(r"\b_target_\b", file.read_text())]


# Below these are holes: CVE-2025-32434 and CVE-2026-24747 (torch.load), hydra's instantiate, Pillow's decoders.
@pytest.mark.parametrize(("package", "least"), [("torch", "2.10"), ("hydra-core", "1.3.8"), ("pillow", "12.2")])
def test_what_is_required_is_new_enough(package: str, least: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirement = next(one for one in map(Requirement, project["dependencies"]) if one.name == package)
    assert all(
        Version(below) not in requirement.specifier
        for below in ("0.1", "1.3.7", "2.9.1", "12.1.1")
        if Version(below) < Version(least)
    )
    assert Version(version(package)) >= Version(least)
